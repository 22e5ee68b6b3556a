"""Empty BentoML endpoints: they take what `POST /v1/score` takes, and do nothing with it."""

import sys

import bentoml
import uvicorn

from serving.api.bento import Body

Content = dict[str, object]


class _Nothing:
    @bentoml.api(route="/empty")
    async def empty(self, residents: list[Content], drivers: int = 5, targets: list[str] | None = None) -> Content:
        """Take the call as BentoML reads it: JSON, checked against the types written here."""
        return {}

    @bentoml.api(route="/unread", input_spec=Body)
    async def unread(self, content: bytes, content_type: str) -> Content:
        """Take the body as it was sent, which is the least that an endpoint can do."""
        return {}


AsItComes = bentoml.service(name="as-it-comes")(_Nothing)
Quiet = bentoml.service(name="quiet", metrics={"enabled": False}, logging={"access": {"enabled": False}})(_Nothing)


def main() -> None:
    """Serve, on a port, as `weibing serve` does: with the same server and settings."""
    uvicorn.run(Quiet.to_asgi(), port=int(sys.argv[1]), access_log=False, server_header=False, log_level="warning")


if __name__ == "__main__":
    main()
