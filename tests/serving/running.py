"""The real service, in processes of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from serving.security.accounts import Accounts
from serving.security.roles import SCOPES
from serving.security.tokens import Tokens
from serving.store.database import Database
from tests.serving.fronts import SECRET

JSON = {"content-type": "application/json"}
SECONDS_TO_START = 90

SERVE = """
if __name__ == "__main__":
    import os
    from serving.service import serve
    from serving.settings import Settings
    serve(Settings.from_environment(), token=os.environ["TOKEN"])
"""
# As a supervisor starts it, that does not ask first whether there is a champion.
RUN = """
if __name__ == "__main__":
    import uvicorn
    from serving.settings import Settings
    settings = Settings.from_environment()
    uvicorn.run("serving.service:asgi", factory=True, host=settings.host, port=settings.port, log_level="warning")
"""


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path
    token: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.address}{path}", timeout=30, headers=self.known)

    @property
    def known(self) -> dict[str, str]:
        """What a caller sends who is known."""
        return {"authorization": f"Bearer {self.token}"}

    def score(self, body: object, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        return httpx.post(f"{self.address}/v1/score", content=content, headers=JSON | self.known | headers, timeout=60)

    def resident(self, *events: dict[str, object], **call: object) -> dict[str, object]:
        """Score one resident as at the start of 2018, and return what is said of the resident."""
        index_time = call.pop("index_time", "2018-01-01")
        answer = self.score({"residents": [{"id": "r", "index_time": index_time, "events": list(events)}], **call})
        assert answer.status_code == 200, answer.text
        [said] = answer.json()["residents"]
        return said

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + SECONDS_TO_START
        while not holds():
            assert time.monotonic() < deadline, self.log.read_text(encoding="utf-8")
            time.sleep(0.1)

    def wait(self, status: int) -> httpx.Response:
        """Wait until /readyz answers with a status."""
        last: httpx.Response | None = None
        for _ in range(SECONDS_TO_START * 10):
            assert self.process.poll() is None, self.log.read_text()
            with suppress(httpx.TransportError):
                last = self.get("/readyz")
            if last is not None and last.status_code == status:
                return last
            time.sleep(0.1)
        raise AssertionError(f"never {status}: {last and last.text}\n{self.log.read_text()}")


def start(folder: Path, script: str, *, at: str = "", **settings: object) -> Service:
    """Start the service, on a database at an address, in a folder full of names that could be taken for its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "here" / "serving").mkdir(parents=True)
    (folder / "here" / "features.py").write_text("raise RuntimeError", encoding="utf-8")
    (folder / "run.py").write_text(script, encoding="utf-8")
    database, token = clinic_in(at or str(folder / "clinic.db"))
    settings |= {"port": port, "db": database, "key": SECRET}
    given = {f"WEIBING_{name.upper()}": str(value) for name, value in settings.items()} | {"TOKEN": token}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, folder / "run.py"],
            cwd=folder / "here",
            env=os.environ | given | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Service(process, f"http://127.0.0.1:{port}", log, token)


def clinic_in(place: str) -> tuple[str, str]:
    """Make a database with a system that may do what systems may; return its address and the token."""
    database = Database.open(place)
    now = datetime.now(UTC).replace(tzinfo=None)
    account, _ = Accounts(database).add("lab", "system", now)
    _, token = Tokens(database).make(account, SCOPES, 1, now)
    return database.address, token


def stopped_at_the_end(service: Service) -> Iterator[Service]:
    try:
        yield service
    finally:
        _kill(service)


def _kill(service: Service) -> None:
    """Kill a service and the processes that it has begun."""
    with suppress(ProcessLookupError):
        os.killpg(service.process.pid, signal.SIGKILL)
    service.process.wait()
