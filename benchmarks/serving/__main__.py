"""`POST /v1/score` beside an empty BentoML endpoint, called in turn: see README.md."""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.serving.call import body
from benchmarks.serving.client import Told, call, press, request
from serving.security.accounts import Accounts
from serving.security.tokens import Tokens
from serving.store.database import Database

CLIENTS = (1, 8, 32)
ROUNDS = 7
SECONDS = 2.0
SECONDS_TO_START = 300
OURS, EMPTY = "Weibing", "empty, same server"
WEIBING = "from weibing import main; main()"
EMPTY_MODULE = "benchmarks.serving.empty"


@dataclass(frozen=True)
class Contender:
    """Something that answers: where, and what it is sent."""

    port: int
    request: bytes


def main() -> None:
    """Start everyone, call everyone in turn, and say how long they took."""
    chosen = options()
    with TemporaryDirectory() as scratch, ExitStack() as running:
        contenders = started(chosen.mlruns.absolute(), Path(scratch), running)
        for name, each in contenders.items():
            check(name, each)
            press(each.port, each.request, max(chosen.clients), 1.0)
        rounds = [one_round(number, contenders, chosen) for number in range(chosen.rounds)]
    found = {clients: summed_up([each[clients] for each in rounds]) for clients in chosen.clients}
    print(said(found))
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--mlruns", type=Path, default=Path("mlruns"), help="registry with a champion of each target")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each contender, in turn")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that one is called, in each round")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def started(mlruns: Path, scratch: Path, running: ExitStack) -> dict[str, Contender]:
    """Start the service and the empty ones, each on a port of its own."""
    ours, quiet, default = free_port(), free_port(), free_port()
    token, settings = prepared(scratch, mlruns)
    home = {"BENTOML_HOME": str(scratch / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    commands = {
        ours: ["-c", WEIBING, "serve", "--port", str(ours)],
        quiet: ["-m", EMPTY_MODULE, str(quiet)],
        default: ["-m", "bentoml", "serve", f"{EMPTY_MODULE}:AsItComes", "--port", str(default)],
    }
    for port, command in commands.items():
        running.enter_context(process(command, port, home | settings, scratch / f"{port}.log"))
    told = body()
    return {
        OURS: Contender(ours, request(ours, "/v1/score", told, token)),
        EMPTY: Contender(quiet, request(quiet, "/empty", told, token)),
        "empty, body unread, same server": Contender(quiet, request(quiet, "/unread", told, token)),
        "empty, bentoml serve": Contender(default, request(default, "/empty", told, token)),
    }


def prepared(scratch: Path, mlruns: Path) -> tuple[str, dict[str, str]]:
    """Make a database with a system that may ask for scores; return its token, and the settings of the service."""
    now = datetime.now(UTC).replace(tzinfo=None)
    address = str(scratch / "weibing.db")
    database = Database.open(address)
    accounts = Accounts(database)
    account, _ = accounts.add("caller", "system", now)
    _, secret = Tokens(database).make(account, ["score"], 1, now)
    kept = {"WEIBING_KEY": token_urlsafe(), "WEIBING_DB": address, "WEIBING_MLRUNS": str(mlruns)}
    return secret, kept | {"WEIBING_RATE_PER_SECOND": "0"}


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(command: list[str], port: int, settings: dict[str, str], log: Path) -> Iterator[None]:
    """Run a server until it is ready, and end it afterwards."""
    with log.open("wb") as out:
        server = subprocess.Popen([sys.executable, *command], env=os.environ | settings, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while not ready(port):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(log.read_text(encoding="utf-8"))
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


def ready(port: int) -> bool:
    """Whether a server says that it is ready."""
    with suppress(OSError):
        return call(port, b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    return False


def check(name: str, contender: Contender) -> None:
    """Make sure that what is measured is an answer."""
    head, _, content = call(contender.port, contender.request).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"{name}: {head.decode()}\n{content.decode()}")
    if name == OURS:
        [resident] = json.loads(content)["residents"]
        named = {score["target"]: len(score["drivers"]) for score in resident["scores"]}
        assert list(named.values()) == [5, 5, 5], resident
        assert not any(resident[unused] for unused in ("unknown_codes", "unused_values", "ignored_events")), resident


def one_round(number: int, contenders: dict[str, Contender], chosen: argparse.Namespace) -> dict[int, dict[str, Told]]:
    """Call everyone in turn, in each round beginning with another."""
    first = number % len(contenders)
    names = [*list(contenders)[first:], *list(contenders)[:first]]
    print(f"round {number + 1} of {chosen.rounds}", file=sys.stderr)
    return {
        clients: {
            name: press(contenders[name].port, contenders[name].request, clients, chosen.seconds) for name in names
        }
        for clients in chosen.clients
    }


def summed_up(rounds: list[dict[str, Told]]) -> dict[str, dict[str, Any]]:
    """Return medians over the rounds; the ratios are taken within each round."""
    return {
        name: {
            "p99 ms": median(1e3 * slowest_but_one_in_a_hundred(each[name]) for each in rounds),
            "median ms": median(1e3 * median(each[name].seconds) for each in rounds),
            "calls a second": median(len(each[name].seconds) / each[name].took for each in rounds),
            "errors": sum(each[name].errors for each in rounds),
            "times empty": median(median(each[name].seconds) / median(each[EMPTY].seconds) for each in rounds),
            "calls": sum(len(each[name].seconds) for each in rounds),
        }
        for name in sorted(rounds[0])
    }


def slowest_but_one_in_a_hundred(told: Told) -> float:
    """Return the seconds within which 99 of 100 answers came."""
    if not told.seconds:
        sys.exit("Somebody answered nothing in a whole round. Give them more --seconds.")
    return sorted(told.seconds)[int(0.99 * len(told.seconds))]


def said(found: dict[int, dict[str, dict[str, Any]]]) -> str:
    """Say it in a table."""
    lines = []
    for clients, contenders in found.items():
        lines += ["", f"{clients} client(s){'':24}median ms   p99 ms   calls/s   x empty   errors"]
        for name, of in contenders.items():
            figures = f"{of['median ms']:9.2f}{of['p99 ms']:9.2f}{of['calls a second']:10.0f}{of['times empty']:10.2f}"
            lines.append(f"  {name:34}{figures}{of['errors']:9}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
