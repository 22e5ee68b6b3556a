"""Mixed load for minutes on end: does memory stay flat, is every answer one that was asked for? See README.md."""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from threading import Event, Lock, Thread

import httpx
import psutil

from features.errors import WeibingError
from features.events import EventStore
from features.sources.county import simulate
from serving.api.calls import EXAMPLES
from serving.demo import Furnished, closing_day, first_night
from serving.store.database import Database
from serving.store.lists import ListQuery, page
from serving.store.panels import Panels
from training.tracking import Registry

SAMPLE_SECONDS = 5.0
YEARS = 6
# The allocator's and the caches' first growth is over.
WARM_SHARE = 0.25
FHIR = {"content-type": "application/fhir+json"}


@dataclass
class Load:
    """Callers, and what they got."""

    address: str
    token: str
    residents: list[int]
    panel: int
    stop: Event = field(default_factory=Event)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    _lock: Lock = field(default_factory=Lock)

    def run(self, number: int) -> None:
        """Call until told to stop, as one caller does: one call after the other, chosen by lot."""
        rng = random.Random(number)
        with httpx.Client(
            base_url=self.address, headers={"authorization": f"Bearer {self.token}"}, timeout=60
        ) as client:
            count = 0
            while not self.stop.is_set():
                name, call = rng.choices(self.kinds(), weights=[kind[2] for kind in self.kinds()])[0][:2]
                begun = time.perf_counter()
                try:
                    answer = call(client, rng, f"{number}-{count}")
                    said = f"{name} {answer.status_code}"
                except httpx.HTTPError as error:
                    said = f"{name} {type(error).__name__}"
                count += 1
                with self._lock:
                    self.answers[said] += 1
                    self.seconds.setdefault(name, []).append(time.perf_counter() - begun)

    def kinds(self) -> list[tuple[str, Callable[[httpx.Client, random.Random, str], httpx.Response], int]]:
        """Return what is called, and how often."""
        return [
            ("list", self.listed, 20),
            ("risk", self.risk, 20),
            ("risk now", self.now, 15),
            ("score", self.score, 20),
            ("observation", self.observe, 15),
            ("observation again", self.again, 5),
            ("FHIR search", self.search, 4),
            ("refused", self.refused, 1),
        ]

    def listed(self, client: httpx.Client, rng: random.Random, _: str) -> httpx.Response:
        target = rng.choice(("hypertension", "fall", "diabetes_complication"))
        asked = {"panel": self.panel, "target": target, "sort": rng.choice(("risk", "due"))}
        return client.get("/v1/lists", params=asked)

    def risk(self, client: httpx.Client, rng: random.Random, _: str) -> httpx.Response:
        return client.get(f"/v1/residents/{rng.choice(self.residents)}/risk")

    def now(self, client: httpx.Client, rng: random.Random, _: str) -> httpx.Response:
        return client.get(f"/v1/residents/{rng.choice(self.residents)}/risk", params={"at": "now"})

    def score(self, client: httpx.Client, _: random.Random, __: str) -> httpx.Response:
        return client.post("/v1/score", json=EXAMPLES["one resident"])

    def observe(self, client: httpx.Client, rng: random.Random, name: str) -> httpx.Response:
        return client.post("/v1/observations", content=self.observation(rng, name), headers=FHIR)

    def again(self, client: httpx.Client, rng: random.Random, name: str) -> httpx.Response:
        """Send the same twice."""
        content = self.observation(rng, f"{name}-twice")
        client.post("/v1/observations", content=content, headers=FHIR)
        answer = client.post("/v1/observations", content=content, headers=FHIR)
        assert answer.status_code != 200 or answer.json()["known"] == 1
        return answer

    def search(self, client: httpx.Client, rng: random.Random, _: str) -> httpx.Response:
        return client.get("/fhir/R4/RiskAssessment", params={"subject": f"Patient/{rng.choice(self.residents)}"})

    def refused(self, client: httpx.Client, _: random.Random, __: str) -> httpx.Response:
        return client.get("/v1/counts")

    def observation(self, rng: random.Random, name: str) -> bytes:
        told = {
            "resourceType": "Observation",
            "identifier": [{"system": "urn:soak", "value": name}],
            "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
            "subject": {"reference": f"Patient/{rng.choice(self.residents)}"},
            "effectiveDateTime": (datetime.now(UTC) - timedelta(seconds=10)).isoformat(),
            "valueQuantity": {"value": rng.randint(95, 205), "code": "mm[Hg]", "system": "http://unitsofmeasure.org"},
        }
        return json.dumps(told).encode()


# A call that is to be refused is answered as it should be.
EXPECTED = {"refused": 403}


def main() -> None:
    chosen = _options()
    with TemporaryDirectory(prefix="weibing-soak-") as scratch:
        folder = Path(scratch)
        (folder / "mlruns").symlink_to(chosen.mlruns.absolute())
        simulate(folder / "county", residents=chosen.residents, years=YEARS, end=closing_day(datetime.now(UTC)))
        furnished = _furnished(folder)
        with _running(folder, chosen) as process:
            load = Load(f"http://127.0.0.1:{chosen.port}", furnished.token, *_panel(folder))
            found = _soaked(load, process, chosen)
    print(_said(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if found["errors"]:
        raise WeibingError(f"There were errors: {found['errors']}")


def _furnished(folder: Path) -> Furnished:
    now = datetime.now(UTC).replace(tzinfo=None)
    store, models = EventStore.open(folder / "county"), Registry(folder / "mlruns").champions()
    return first_night(store, folder, models, now, lambda line: print(line, file=sys.stderr))[0]


def _panel(folder: Path) -> tuple[list[int], int]:
    """Return the residents of the first panel who have a score: who is born after now, by the plan, has none."""
    database = Database.open(str(folder / "weibing.db"))
    panel = Panels(database).all()[0].id
    listed = page(database, ListQuery(panel, "hypertension", limit=500), datetime.now(UTC).replace(tzinfo=None))
    return [row.subject_id for row in listed.rows], panel


@contextmanager
def _running(folder: Path, chosen: argparse.Namespace) -> Iterator[psutil.Process]:
    """Run the service as `weibing demo` does, in a process of its own."""
    code = (
        "from pathlib import Path; from serving.demo import settings_of; from serving.service import serve;"
        f"serve(settings_of(Path({str(folder)!r}), {chosen.port}))"
    )
    roomy = {"WEIBING_RATE_PER_SECOND": "0"}
    with (folder / "log").open("wb") as log:
        process = psutil.Popen([sys.executable, "-c", code], stdout=log, stderr=log, env=os.environ | roomy)
    try:
        _wait(process, f"http://127.0.0.1:{chosen.port}/readyz", folder / "log")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: psutil.Process, address: str, log: Path) -> None:
    for _ in range(600):
        if not process.is_running():
            raise WeibingError(f"The service did not start: {log.read_text(encoding='utf-8')}")
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise WeibingError("The service is not ready after two minutes.")


def _soaked(load: Load, process: psutil.Process, chosen: argparse.Namespace) -> dict[str, object]:
    callers = [Thread(target=load.run, args=(number,)) for number in range(chosen.clients)]
    for caller in callers:
        caller.start()
    begun, memory = time.monotonic(), list[tuple[float, float, int]]()
    while (passed := time.monotonic() - begun) < 60 * chosen.minutes:
        time.sleep(SAMPLE_SECONDS)
        memory.append((passed, process.memory_info().rss / 2**20, process.num_fds()))
    load.stop.set()
    for caller in callers:
        caller.join()
    errors = {said: times for said, times in load.answers.items() if said != f"{_name(said)} {_expected(said)}"}
    warm = [each for each in memory if each[0] >= WARM_SHARE * 60 * chosen.minutes]
    return {
        "minutes": chosen.minutes,
        "clients": chosen.clients,
        "answers": dict(load.answers.most_common()),
        "errors": errors,
        "rate": sum(load.answers.values()) / (60 * chosen.minutes),
        "seconds": {
            name: {"median": median(times), "p99": quantiles(times, n=100)[-1]} for name, times in load.seconds.items()
        },
        "memory": {"first": memory[0][1], "warm": warm[0][1], "last": warm[-1][1], "peak": max(m[1] for m in memory)},
        "growth_mib_an_hour": _slope(warm),
        "files": {"warm": warm[0][2], "last": warm[-1][2]},
    }


def _name(said: str) -> str:
    return said.rpartition(" ")[0]


def _expected(said: str) -> int:
    return EXPECTED.get(_name(said), 200)


def _slope(samples: list[tuple[float, float, int]]) -> float:
    """Return by how many MiB an hour memory grows, by least squares."""
    times, sizes = [each[0] for each in samples], [each[1] for each in samples]
    at, of = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((time - at) ** 2 for time in times)
    return 3_600 * sum((time - at) * (size - of) for time, size in zip(times, sizes, strict=True)) / spread


def _said(found: dict[str, object]) -> str:
    return json.dumps(found, indent=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residents", type=int, default=20_000, help="of a synthetic county")
    parser.add_argument("--mlruns", type=Path, required=True, help="registry with champions")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--port", type=int, default=3999)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
