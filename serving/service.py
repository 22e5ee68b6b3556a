"""The BentoML service: wiring only."""

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

from features.engine import Engine
from features.errors import WeibingError
from features.profile import declared
from serving.api.announcement import announce_when_ready
from serving.api.application import application
from serving.api.bento import endpoint, on_shutdown, on_startup
from serving.api.champions import Champions
from serving.api.gate import Gate
from serving.api.scores import Desk, ScoreAnswer
from serving.settings import Settings
from training.tracking import Registry

# The gate's own limits are shorter, and end in problem details.
NEVER_SECONDS = 86_400
# How long calls that are under way may take to end when the service is told to.
LAST_SECONDS = 10

# Where one that listens at every address of the machine is met on it.
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {"serving": {"level": "INFO"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}


class Scoring:
    """Scores residents with the champions of a registry."""

    def __init__(self) -> None:
        settings = Settings.from_environment()
        self._champions = Champions(settings, Engine(declared(), timezone=settings.timezone))
        self._desk = Desk(self._champions, settings)
        self._stop = Event()

    @on_startup
    def start(self) -> None:
        """Load the champions beside the server, which meanwhile says that it is alive, and not yet ready."""
        Thread(target=self._champions.watch, args=(self._stop,), name="champions", daemon=True).start()

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
RiskService.mount_asgi_app(application(), path="/")
RiskService.add_asgi_middleware(Gate)


def asgi() -> ASGIApp:
    """Return the service as BentoML serves it."""
    app: ASGIApp = RiskService.to_asgi()
    return app


def serve(settings: Settings, *, announce: bool = False) -> None:
    """Serve in the foreground until interrupted; `announce` says on stdout, once it is ready, how to call it.

    The server listens on one port. BentoML's own command would open others, through which any account of the machine
    could command it.

    Raises
    ------
    WeibingError
        If no target has a champion, or the port is taken.
    """
    _require_champions(settings)
    _require_port(settings)
    settings.export()
    address = ANY_ADDRESS.get(settings.host, f"[{settings.host}]" if ":" in settings.host else settings.host)
    # The server hands the signal on when it has ended; by default that would be the end of all, scratch left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with TemporaryDirectory(prefix="weibing-serve-") as scratch:
        os.environ["BENTOML_HOME"] = scratch
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch
        announce_when_ready(f"http://{address}:{settings.port}", with_call=announce)
        uvicorn.run(
            "serving.service:asgi",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=LOGGING,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_SECONDS,
        )


def _require_champions(settings: Settings) -> None:
    champions = Registry(settings.mlruns).versions()
    lacking = [target for target in settings.targets if target not in champions]
    if not champions or lacking:
        what = f"of {', '.join(lacking)}" if lacking else "of any target"
        raise WeibingError(
            f"The registry {settings.mlruns.absolute()} has no champion {what}. Train one with: weibing train STORE"
        )


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
