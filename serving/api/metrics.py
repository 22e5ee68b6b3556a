"""What the service counts, for Prometheus."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import cast

import sqlalchemy as sql
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from starlette.responses import Response

from serving.scoring import NotAtRisk, Score
from serving.store.database import AwayError, Database
from serving.store.tables import alerts, events

log = logging.getLogger(__name__)

REQUESTS = Counter("weibing_requests", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram(
    "weibing_request_seconds",
    "Time from the first byte of a request to the last of its answer",
    ["route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
UNDER_WAY = Gauge("weibing_requests_under_way", "Requests that are being answered", multiprocess_mode="livesum")
TURNED_AWAY = Counter("weibing_turned_away", "Requests that were not let in, by limit", ["limit"])
SCORES = Counter("weibing_scores", "Scores given", ["target", "tier", "model_version"])
NOT_AT_RISK = Counter("weibing_not_at_risk", "Residents who were not at risk", ["target"])
PROBABILITY = Histogram(
    "weibing_score_probability",
    "The risks that were given: where they drift, so do the residents or the records",
    ["target", "model_version"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7),
)
COMPLETENESS = Counter(
    "weibing_score_completeness", "Scores given, by how much of what the model looks at was known", ["target", "grade"]
)
CHAMPION = Gauge(
    "weibing_champion_loaded",
    "Processes that serve this version, from the registry or from the database's copy",
    ["target", "version", "source"],
    multiprocess_mode="livesum",
)
REFUSED = Counter("weibing_champion_refused", "Champions that failed their check and do not serve", ["target"])
REGISTRY_READABLE = Gauge(
    "weibing_registry_readable", "Whether the model registry can be read (0 or 1)", multiprocess_mode="livemin"
)

# What is read from the database at a scrape: a gauge's name, what it tells, and the query.
READ: tuple[tuple[str, str, sql.Select[int]], ...] = (
    (
        "weibing_events_waiting",
        "Events that came since the last night and are not in the event store yet",
        sql.select(sql.func.count()).select_from(events),
    ),
    (
        "weibing_alerts_open",
        "Alerts that nobody has acknowledged",
        sql.select(sql.func.count()).select_from(alerts).where(alerts.c.acknowledged_at.is_(None)),
    ),
)
# Prometheus itself waits 10 seconds for all.
SECONDS_TO_READ = 3.0


def count(answers: Iterable[Score | NotAtRisk]) -> None:
    """Count answers that are given to somebody."""
    for answer in answers:
        if isinstance(answer, Score):
            scores, risks, grades = _of_score(answer.target, answer.tier, answer.model_version, answer.completeness)
            scores.inc()
            risks.observe(answer.probability)
            grades.inc()
        else:
            NOT_AT_RISK.labels(answer.target).inc()


@lru_cache(maxsize=1_024)
def _of_score(target: str, tier: str, version: str, grade: str) -> tuple[Counter, Histogram, Counter]:
    return (
        SCORES.labels(target, tier, version),
        PROBABILITY.labels(target, version),
        COMPLETENESS.labels(target, grade),
    )


class OfDatabase(Collector):
    """Tells at a scrape what the database holds; where it cannot be read, that, and nothing else."""

    def __init__(self, database: Database) -> None:
        self.database = database
        # One at a time: a database that hangs costs one thread.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read."""
        values = self._values()
        reachable = "Whether the database can be read (0 or 1)"
        yield GaugeMetricFamily("weibing_database_reachable", reachable, value=float(values is not None))
        for (name, told, _), value in zip(READ, values or [], strict=False):
            yield GaugeMetricFamily(name, told, value=value)

    def _values(self) -> list[int] | None:
        """Return what was read; None where that fails or takes too long."""
        reading = self._reader.submit(self._read)
        try:
            return reading.result(timeout=SECONDS_TO_READ)
        # Whatever is wrong with the database, the other counts are told.
        except Exception as error:
            reading.cancel()
            log.warning("The database cannot be read for the metrics: %s", _said(error))
            return None

    def _read(self) -> list[int]:
        with self.database.reading() as connection:
            return [connection.execute(query).scalar_one() for _, _, query in READ]


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, AwayError) else type(error).__name__


@lru_cache(maxsize=8)
def _of_database(database: Database) -> OfDatabase:
    return OfDatabase(database)


def exposition(database: Database | None = None) -> Response:
    """Return the counts of this process or, where several answer, of all of them; and what a database holds."""
    told = generate_latest(_of_processes())
    if database is not None:
        registry = CollectorRegistry()
        registry.register(_of_database(database))
        told += generate_latest(registry)
    return Response(told, media_type=CONTENT_TYPE_LATEST)


def _of_processes() -> CollectorRegistry:
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return REGISTRY
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    cast(Callable[[CollectorRegistry], object], MultiProcessCollector)(registry)
    return registry


def _forget_the_dead(folder: Path) -> None:
    """Leave out the gauges of processes that were killed: nobody else does."""
    for path in folder.glob("gauge_live*_*.db"):
        number = path.stem.rpartition("_")[2]
        if not _lives(int(number)):
            with suppress(FileNotFoundError):
                cast(Callable[[str, str], object], mark_process_dead)(number, str(folder))


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
