"""What an operator is told once the service is ready: where it is, and a call that works."""

import json
import logging
import time
from threading import Thread
from urllib.error import URLError
from urllib.request import urlopen

from serving.api.calls import EXAMPLES
from serving.terminal import say

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


def announce_when_ready(address: str, token: str) -> None:
    """Wait beside the server until it is ready, then log where it is and, given a token, say a call that works."""
    Thread(target=_announce, args=(address, token), name="announcement", daemon=True).start()


def call_that_works(address: str, token: str) -> str:
    """Return a command that scores a made-up resident."""
    call = json.dumps(next(iter(EXAMPLES.values())))
    headers = f"-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json'"
    return f"curl -s {address}/v1/score {headers} -d '{call}'"


def _announce(address: str, token: str) -> None:
    while not _ready(address):
        time.sleep(LOOK_SECONDS)
    log.info("Ready at %s; Ctrl-C ends it.", address)
    if token:
        say(
            f"\nWeibing serves at {address} (Ctrl-C ends it). A call that works:\n\n{call_that_works(address, token)}\n"
        )


def _ready(address: str) -> bool:
    try:
        with urlopen(f"{address}/readyz") as answer:
            return bool(answer.status == 200)
    except URLError:
        return False
