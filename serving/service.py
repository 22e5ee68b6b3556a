"""The BentoML service: wiring only."""

import logging
import os
import signal
import socket
import sys
from contextlib import closing
from tempfile import TemporaryDirectory
from threading import Event, Thread

import bentoml
import uvicorn
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from features.errors import WeibingError
from serving.api.announcement import announce_when_ready
from serving.api.application import application
from serving.api.bento import bare_asgi, endpoint, on_shutdown, on_startup, settle
from serving.api.clinic import Clinic, opened
from serving.api.door import Door
from serving.api.gate import Gate
from serving.api.housekeeping import keep_house
from serving.api.scores import Desk, ScoreAnswer
from serving.logs import configuration
from serving.settings import Settings
from serving.store.champions import ChampionsKept
from serving.store.database import Database
from training.tracking import Registry

log = logging.getLogger(__name__)

# The gate's own limits are shorter, and end in problem details.
NEVER_SECONDS = 86_400
# How long calls that are under way may take to end when the service is told to.
LAST_SECONDS = 10

# Where one that listens at every address of the machine is met on it.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


class Scoring:
    """Scores residents with the champions of a registry."""

    def __init__(self) -> None:
        self._clinic = opened()
        self._champions = self._clinic.champions
        self._desk = Desk(self._champions, self._clinic.settings)
        self._stop = Event()
        settle(self, "score")

    @on_startup
    def start(self) -> None:
        """Load the champions beside the server, which meanwhile says that it is alive, and not yet ready."""
        Thread(target=self._champions.watch, args=(self._stop,), name="champions", daemon=True).start()
        Thread(target=keep_house, args=(self._clinic, self._stop), name="housekeeping", daemon=True).start()

    @on_shutdown
    def stop(self) -> None:
        """Let go of what runs beside the server."""
        self._stop.set()
        self._desk.close()

    async def __is_ready__(self) -> bool:
        """Tell BentoML whether it may send calls, and the operator what is missing."""
        if not self._champions.ready:
            raise HTTPException(503, " ".join(self._champions.missing))
        return True

    @endpoint("/v1/score", ScoreAnswer)
    async def score(self, content: bytes, content_type: str) -> Response:
        """Score residents by what is known of them."""
        return await self._desk.answer(content, content_type)


# BentoML's own metrics and access log keep every address that is asked for; the gate counts by route instead.
RiskService = bentoml.service(
    name="weibing",
    traffic={"timeout": NEVER_SECONDS},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)(Scoring)


def asgi() -> ASGIApp:
    """Return the service as BentoML serves it, behind the gate and the door."""
    clinic = opened()
    RiskService.mount_asgi_app(application(clinic), path="/")
    return Gate(Door(bare_asgi(RiskService), clinic))


def serve(settings: Settings, *, token: str = "") -> None:
    """Serve in the foreground until interrupted; given a token, say on stdout, once it is ready, how to call it.

    The server listens on one port. BentoML's own command would open others, through which any account of the machine
    could command it.

    Raises
    ------
    WeibingError
        If no database or key is named, the key is another one, no target has a champion, or the port is taken.
    """
    clinic = Clinic.of(settings)
    clinic.open()
    _require_champions(settings, clinic.database)
    _require_port(settings)
    _require_loopback_for_demo(settings)
    settings.export()
    address = ANY_ADDRESS.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    # The server hands the signal on when it has ended; by default that would be the end of all, scratch left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with TemporaryDirectory(prefix="weibing-serve-") as scratch:
        os.environ["BENTOML_HOME"] = scratch
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch
        announce_when_ready(f"http://{address}:{settings.port}", token)
        uvicorn.run(
            "serving.service:asgi",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=configuration(json=not sys.stderr.isatty()),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_SECONDS,
        )


def _require_champions(settings: Settings, database: Database) -> None:
    """Refuse to start where neither the registry nor the database's copy has what is to be served."""
    champions = {**ChampionsKept(database).versions(), **_registered(settings)}
    lacking = [target for target in settings.targets if target not in champions]
    if not champions or lacking:
        what = f"of {', '.join(lacking)}" if lacking else "of any target"
        raise WeibingError(
            f"The registry {settings.mlruns.absolute()} has no champion {what}. Train one with: weibing train STORE"
        )


def _registered(settings: Settings) -> dict[str, str]:
    try:
        return Registry(settings.mlruns).versions()
    # MLflow says in many ways that a registry cannot be read; the copy may serve.
    except Exception as error:
        log.warning("The registry %s cannot be read: %r.", settings.mlruns, error)
        return {}


def _require_loopback_for_demo(settings: Settings) -> None:
    if settings.demo and settings.host not in ("127.0.0.1", "::1"):
        raise WeibingError("The demonstration has a key that everybody knows: it listens on this machine alone.")


def _require_port(settings: Settings) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise WeibingError(
                f"Nothing can listen at {settings.host}, port {settings.port}: {error.strerror}."
                " Choose another with --port, or end what uses it."
            ) from error
