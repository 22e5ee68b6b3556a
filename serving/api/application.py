"""The FastAPI application that is mounted in the service."""

from importlib.metadata import version

from fastapi import FastAPI
from starlette.responses import JSONResponse, RedirectResponse, Response

from serving.api.metrics import exposition
from serving.api.openapi import specification

ABOUT = (
    "Absolute risks of hypertension, a complication of diabetes, and falls, with reasons. Not a medical device."
    " Failures are problem details (RFC 9457)."
)


def application() -> FastAPI:
    """Return the application; it loads nothing from another host, so it has no page of documentation."""
    app = FastAPI(
        title="Weibing", version=version("weibing"), description=ABOUT, openapi_url=None, docs_url=None, redoc_url=None
    )

    @app.get("/metrics", summary="What the service counts, for Prometheus")
    def metrics() -> Response:
        """Return the counts in the text format of Prometheus."""
        return exposition()

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
