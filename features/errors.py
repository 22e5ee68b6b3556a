"""The one kind of error that a user can mend."""

from difflib import get_close_matches


class WeibingError(Exception):
    """A mistake in records, settings or a call: names the thing, the place and the remedy.

    The command line shows its sentence without a traceback and ends with exit code 1. Every other exception is a
    fault of the program and keeps its traceback.
    """


def did_you_mean(wrong: str, known: list[str]) -> str:
    """Return `` Did you mean "…"?`` for the closest of the known words, or nothing."""
    close = get_close_matches(wrong, known, n=1)
    return f' Did you mean "{close[0]}"?' if close else ""
