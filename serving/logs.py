"""How the service logs: a JSON object a line, or on a terminal a plain line.

Nothing that is known of a resident is logged. Of an exception that is told where it came from and of which kind it is:
its words may hold what somebody sent, except those of a few kinds that speak of the program or the machine alone.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from traceback import StackSummary, TracebackException

from serving.store.database import AwayError

# Of the request that is being answered; empty outside of one.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
# What a record may say beside its message.
FIELDS = ("route", "method", "status", "seconds", "caller")
# Their words name files, types and attributes, never a value that was sent.
TELLING = (AwayError, OSError, ImportError, MemoryError, RecursionError, AttributeError, NameError, TypeError)


def configuration(*, json: bool) -> dict[str, object]:
    """Return how the logging of a process that serves is set up, for :func:`logging.config.dictConfig`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": JsonLine if json else PlainLine}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {"serving": {"level": "INFO"}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
    }


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


class JsonLine(logging.Formatter):
    """Writes a record as a JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            told["request_id"] = request_id
        told |= {name: vars(record)[name] for name in FIELDS if name in vars(record)}
        if record.exc_info and record.exc_info[1]:
            told["exception"] = traceback_of(record.exc_info[1])
        return _ENCODER.encode(told)


class PlainLine(logging.Formatter):
    """Writes a record for somebody who looks on."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line, and those of an exception below it."""
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S")
        line = f"{time} {record.levelname} {record.getMessage()}"
        if record.exc_info and record.exc_info[1]:
            line = f"{line}\n{traceback_of(record.exc_info[1])}"
        return line


def traceback_of(error: BaseException) -> str:
    """Return where an exception came from, with the words of those kinds alone that cannot tell of a resident."""
    parts, seen, current = list[str](), set[int](), error
    while True:
        seen.add(id(current))
        frames = StackSummary.from_list(TracebackException.from_exception(current).stack)
        parts.append("".join([*frames.format(), _name(current)]))
        cause = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        if cause is None or id(cause) in seen:
            return "\nwhich came of:\n".join(parts)
        current = cause


def _name(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{kind}: {error}" if isinstance(error, TELLING) else kind
