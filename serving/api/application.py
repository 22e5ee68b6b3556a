"""The FastAPI application that is mounted in the service."""

import logging
from http import HTTPStatus
from importlib.metadata import version
from typing import cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import compile_path

from serving.api.books import cds_books, risk_books
from serving.api.cds_hooks import cds_hooks_router, read_clients
from serving.api.clinic import Clinic
from serving.api.counts import counts_router
from serving.api.door import away
from serving.api.fhir import fhir_router
from serving.api.lists import lists_router
from serving.api.login import login_router
from serving.api.metrics import exposition
from serving.api.observations import observations_router
from serving.api.openapi import refusals, specification
from serving.api.problems import OTHER_METHOD, Fault, ProblemError, unprocessable
from serving.api.residents import residents_router
from serving.store.database import AwayError

log = logging.getLogger(__name__)

ABOUT = (
    "Absolute risks of hypertension, a complication of diabetes, and falls, with reasons; lists, duties and visits."
    " Not a medical device. Failures are problem details (RFC 9457)."
)


def application(clinic: Clinic) -> FastAPI:
    """Return the application; it loads nothing from another host, so it has no page of documentation."""
    app = FastAPI(
        title="Weibing", version=version("weibing"), description=ABOUT, openapi_url=None, docs_url=None, redoc_url=None
    )
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(AwayError, _away)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPStatus.METHOD_NOT_ALLOWED, _other_method)
    for router in (login_router, lists_router, residents_router, observations_router, counts_router):
        app.include_router(router(clinic))
    app.include_router(fhir_router(risk_books(clinic), clinic.settings), include_in_schema=True)
    _include_cds_hooks(app, clinic)

    summary = "What the service counts, for Prometheus"

    @app.get("/metrics", summary=summary, response_class=PlainTextResponse, responses=refusals(401, 403))
    def metrics() -> Response:
        """Return the counts in the text format of Prometheus."""
        return exposition(clinic.database)

    # Under BentoML's name as well, in the place of its own, which knows nothing of what is mounted.
    @app.get("/docs.json", include_in_schema=False)
    @app.get("/openapi.json", include_in_schema=False)
    def openapi() -> Response:
        """Describe the whole service."""
        return JSONResponse(specification(app))

    # In the place of BentoML's own page, which calls home.
    @app.get("/", include_in_schema=False)
    def root() -> Response:
        """Lead to the description."""
        return RedirectResponse("/openapi.json")

    return app


def _include_cds_hooks(app: FastAPI, clinic: Clinic) -> None:
    """Answer CDS Hooks, where the operator has listed systems that may call them."""
    if clinic.settings.cds_clients is None:
        return
    clients = read_clients(clinic.settings.cds_clients)
    assess, feedback, replays = cds_books(clinic)
    app.include_router(cds_hooks_router(clients, assess, feedback, replays, clinic.settings))


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ProblemError)
    return problem.response()


async def _away(_: Request, error: Exception) -> Response:
    log.error("%s", error)
    return away().response()


async def _other_method(request: Request, error: Exception) -> Response:
    """Say all methods of an address: of several routes of one address, the router names those of the first."""
    assert isinstance(error, HTTPException)
    paths, asked = cast(FastAPI, request.app).openapi()["paths"], request.url.path
    path = asked if asked in paths else next((each for each in paths if compile_path(each)[0].match(asked)), None)
    headers = dict(error.headers or {}) if path is None else {"Allow": ", ".join(map(str.upper, paths[path]))}
    return ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, OTHER_METHOD, headers=headers).response()


async def _invalid(_: Request, error: Exception) -> Response:
    """Say which part of an address cannot be."""
    assert isinstance(error, RequestValidationError)
    faults = [
        Fault(tuple(fault["loc"][1:]) or tuple(fault["loc"]), str(fault["msg"]).lower()) for fault in error.errors()
    ]
    return unprocessable(*faults).response()
