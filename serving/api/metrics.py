"""What the service counts, for Prometheus."""

import os
from collections.abc import Callable
from typing import cast

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response

REQUESTS = Counter("weibing_requests", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram(
    "weibing_request_seconds",
    "Time from the first byte of a request to the last of its answer",
    ["route"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
SCORES = Counter("weibing_scores", "Scores given", ["target", "tier", "model_version"])
NOT_AT_RISK = Counter("weibing_not_at_risk", "Residents who were not at risk", ["target"])


def exposition() -> Response:
    """Return the counts of this process or, where several answer, of all of them."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        cast(Callable[[CollectorRegistry], object], MultiProcessCollector)(registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
