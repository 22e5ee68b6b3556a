"""Files as resources: Bulk Data (a resource a line) and Bundles, plain or gzipped.

Bulk Data is read line by line, so that memory does not grow with the file; a Bundle is one JSON text, held as a whole.
"""

import gc
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, NamedTuple, cast

from features.errors import WeibingError
from features.sources.fhir.elements import Element, element, elements, text

BULK = (".ndjson", ".ndjson.gz")
WHOLE = (".json", ".json.gz")


class Resource(NamedTuple):
    """A resource, and the place where it stands; `names` says what addresses within its Bundle mean."""

    content: Element
    kind: str
    id: str | None
    place: str
    names: Mapping[str, str] = MappingProxyType({})


def files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are named, and those within the folders that are, each once.

    Raises
    ------
    WeibingError
        If a path is not there, or a file bears another name than those of Bulk Data and Bundles.
    """
    if not paths:
        raise WeibingError("There are no files to read.")
    return list(dict.fromkeys(file.resolve() for path in paths for file in _files(path)))


def resources_in(file: Path, kinds: Sequence[str] = ()) -> Iterator[Resource]:
    """Yield the resources of a file, of some kinds alone where they are given.

    Raises
    ------
    WeibingError
        If the file cannot be read, or what it holds is not JSON; names the line.
    """
    wanted = re.compile(rf'"resourceType"\s*:\s*"(?:{"|".join(kinds)})"'.encode())
    for number, line in _texts(file):
        # A look at the text costs a tenth of reading it.
        if not kinds or wanted.search(line):
            place = f"{file.name}, line {number}" if _is_bulk(file) else file.name
            for resource in _found(_parsed(line, file.name, number), place):
                if not kinds or resource.kind in kinds:
                    yield resource


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _is_ours(file))
        if not found:
            raise WeibingError(f"There are no files {', '.join(BULK + WHOLE)} in {path}.")
        return found
    if not path.is_file():
        raise WeibingError(f"There is no file {path}.")
    if not _is_ours(path):
        raise WeibingError(
            f"{path.name} is not called like a file of FHIR resources. Bulk Data, with a resource a line, is called "
            f"{' or '.join(BULK)}; a Bundle {' or '.join(WHOLE)}."
        )
    return [path]


def _is_ours(file: Path) -> bool:
    return file.name.lower().endswith(BULK + WHOLE)


def _is_bulk(file: Path) -> bool:
    return file.name.lower().endswith(BULK)


def _texts(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the JSON texts of a file, with the line on which they begin."""
    with _opened(file) as stream:
        if _is_bulk(file):
            yield from ((number, line) for number, line in enumerate(stream, 1) if not line.isspace())
        else:
            yield 1, stream.read()


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        with cast(IO[bytes], gzip.open(file)) if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise WeibingError(f"{file.name} cannot be read to its end: {error}.") from error


def _parsed(written: bytes, name: str, line: int) -> Element:
    try:
        with _collector_paused():
            content = json.loads(written.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError as error:
        line += written.count(b"\n", 0, error.start)
        raise WeibingError(f"{name}, line {line}: this is not UTF-8. Save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise WeibingError(_what_is_wrong(error, name, line)) from error
    except (ValueError, RecursionError) as error:
        raise WeibingError(f"{name}, line {line}: this cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise WeibingError(f"{name}, line {line}: this is no FHIR resource, which would begin with {{.")
    return content


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Spare a text that is being parsed the collector, which would look through a growing Bundle time and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _what_is_wrong(error: json.JSONDecodeError, name: str, line: int) -> str:
    place = f"{name}, line {line + error.lineno - 1}"
    if error.msg == "Extra data":
        return f"{place}: something follows the resource. A file with a resource a line is called {' or '.join(BULK)}."
    return f"{place}: this is not JSON: {error.msg} (column {error.colno})."


def _found(content: Element, place: str) -> Iterator[Resource]:
    """Yield a resource, or those in a Bundle."""
    kind = text(content, "resourceType") or ""
    if kind != "Bundle":
        yield Resource(content, kind, text(content, "id"), place)
        return
    entries = [(text(entry, "fullUrl") or "", element(entry, "resource")) for entry in elements(content, "entry")]
    names = {url: f"{text(it, 'resourceType')}/{_id(it, url)}" for url, it in entries if url}
    for number, (url, it) in enumerate(entries, 1):
        yield Resource(it, text(it, "resourceType") or "", _id(it, url), f"{place}, entry {number}", names)


def _id(content: Element, url: str) -> str | None:
    """Return the id of a resource, or what its address in the Bundle ends with."""
    return text(content, "id") or re.split("[:/]", url)[-1] or None
