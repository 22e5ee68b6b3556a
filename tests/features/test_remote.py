"""A store on a web server: the same records as on a disk, and one clear sentence where there are none."""

import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from features import events, remote
from features.columns import read_columns
from features.errors import WeibingError
from features.events import EventStore
from features.remote import RemoteStore, on_disk, open_store

SHARDS = 4


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> Path:
    """Where copies go; a failure is not waited for."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(remote, "SECONDS_BETWEEN_ATTEMPTS", (0.0, 0.0))
    return folder


@pytest.fixture
def store(tmp_path, monkeypatch) -> EventStore:
    """A store of 40 residents in four shards."""
    monkeypatch.setattr(events, "RESIDENTS_PER_SHARD", 10)
    made = EventStore.create(
        tmp_path / "county", timezone="Asia/Shanghai", name="某县", description={"synthetic": True}
    )
    rows = {"subject_id": [*range(1, 41)] * 2, "code": ["sbp"] * 40 + ["跌倒"] * 40, "numeric_value": range(80)}
    made.append([pl.DataFrame(rows).with_columns(time=pl.datetime(2024, 1, pl.col("subject_id") % 28 + 1))])
    assert len(made.shards) == SHARDS
    return EventStore.open(made.path)


@pytest.fixture
def url(store):
    """The store's folder on a web server of its own process."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", store.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        port = re.search(r"port (\d+)", server.stdout.readline())[1]
        yield f"http://127.0.0.1:{port}"
        server.terminate()


class Faulty(SimpleHTTPRequestHandler):
    """A web server that answers as a test has it: `fault` is asked first, and says whether it has answered."""

    fault = staticmethod(lambda handler: False)

    def do_GET(self):
        self.fault(self) or super().do_GET()

    do_HEAD = do_GET  # noqa: N815

    def copyfile(self, source, outputfile):
        if self.command == "GET":
            super().copyfile(source, outputfile)

    def log_message(self, *_):
        pass


@pytest.fixture
def faulty(store, monkeypatch):
    """Serve the store with a fault; give its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Faulty, directory=store.path)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()

        def serve(fault) -> str:
            monkeypatch.setattr(Faulty, "fault", staticmethod(fault))
            return f"http://127.0.0.1:{server.server_port}"

        yield serve
        server.shutdown()


def changed(store: EventStore) -> Path:
    """Overwrite the first shard with another one's, and return its path."""
    first, second = store.shards[:2]
    shutil.copyfile(second, first)
    return first


def test_a_store_on_a_web_server_holds_the_same_records(store, url):
    served = open_store(url)
    assert isinstance(served, RemoteStore)
    assert (served.timezone, served.name, served.description) == (store.timezone, "某县", {"synthetic": True})
    assert [shard.name for shard in served.shards] == [shard.name for shard in store.shards]
    with served.held() as still:
        for there, here in zip(still.shards, store.shards, strict=True):
            assert_frame_equal(still.read(there), store.read(here))
    assert served.residents().tolist() == store.residents().tolist() == [*range(1, 41)]
    for subject in (7, 999):
        assert_frame_equal(served.resident(subject), store.resident(subject))


def test_a_store_by_a_file_url_holds_the_same_records(store):
    served = open_store(f"file://{store.path}")
    assert isinstance(served, RemoteStore)
    for there, here in zip(served.shards, store.shards, strict=True):
        with on_disk(served, there) as copy:
            assert [*read_columns(copy).resident] == [*read_columns(here).resident]


def test_a_store_made_elsewhere_is_read_from_folders_below_its_folder(tmp_path):
    rows = pl.DataFrame({"subject_id": [1], "time": [None], "code": ["female"]})
    for name in ("train/0", "held out/1"):
        path = tmp_path / "meds" / "data" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)
    served = open_store(f"file://{tmp_path}/meds/")
    assert [str(shard) for shard in served.shards] == ["data/held out/1.parquet", "data/train/0.parquet"]
    assert [len(served.read(shard)) for shard in served.shards] == [1, 1]
    assert len(served.resident(1)) == 1


def test_a_path_is_opened_on_the_disk_where_it_lies(store):
    opened = open_store(str(store.path))
    assert isinstance(opened, EventStore)
    with on_disk(opened, opened.shards[0]) as path:
        assert path == store.shards[0]


def test_a_copy_goes_when_it_has_been_used_also_where_that_went_wrong(store, scratch):
    served = open_store(f"file://{store.path}")
    with served.copied(served.shards[0]) as copy:
        assert copy.is_relative_to(scratch)
        assert copy.parent.stat().st_mode & 0o077 == 0
    assert not [*scratch.iterdir()]
    with pytest.raises(ZeroDivisionError), served.copied(served.shards[0]):
        raise ZeroDivisionError
    assert not [*scratch.iterdir()]


def test_what_a_killed_process_left_goes_with_the_next_copy(store, scratch):
    killed = (
        "import os, sys; from features.remote import open_store; s = open_store(sys.argv[1])\n"
        "with s.copied(s.shards[0]) as copy: print(copy.stat().st_size); os.kill(os.getpid(), 9)"
    )
    with open_store(f"file://{store.path}").copied(Path("data/0001.parquet")) as in_use:
        command = [sys.executable, "-c", killed, f"file://{store.path}"]
        assert subprocess.run(command, env=os.environ | {"TMPDIR": str(scratch)}, check=False).returncode == -9
        assert len([*scratch.iterdir()]) == 2
        open_store(f"file://{store.path}").read(Path("data/0000.parquet"))
        assert [*scratch.iterdir()] == [in_use.parent]


def test_another_process_is_held_to_what_was_noted_here(store):
    served = pickle.loads(pickle.dumps(open_store(f"file://{store.path}")))
    assert len(served.read(served.shards[1]))
    changed(store)
    with pytest.raises(WeibingError, match=r"0000.parquet is not what it was when the store was opened"):
        served.read(served.shards[0])


def test_a_shard_that_changed_on_the_web_server_is_refused(store, url):
    served = open_store(url)
    before = served.shards[0]
    os.utime(store.shards[0], (1e9, 1e9))
    with pytest.raises(WeibingError, match=r"0000.parquet is not what it was .* Upload changed records into a new"):
        served.read(before)
    assert len(served.read(served.shards[1]))


def test_a_shard_that_has_gone_is_refused(store, url):
    served = open_store(url)
    store.shards[0].unlink()
    with pytest.raises(WeibingError, match=r"0000.parquet is not what it was"):
        served.read(served.shards[0])


def test_a_store_is_unchanged_only_if_no_shard_changed_or_went_or_came(store):
    served = open_store(f"file://{store.path}")
    served.require_unchanged()
    shutil.copyfile(store.shards[0], store.path / "data" / "0099.parquet")
    with pytest.raises(WeibingError, match=r"0099.parquet is not what it was"):
        served.require_unchanged()
    (store.path / "data" / "0099.parquet").unlink()
    served.require_unchanged()
    store.shards[1].unlink()
    with pytest.raises(WeibingError, match=r"0001.parquet is not what it was"):
        served.require_unchanged()


def test_the_state_is_the_same_until_the_records_are_others(store, url):
    assert open_store(url).state == open_store(url).state
    before = open_store(url).state
    store.append([pl.DataFrame({"subject_id": [3], "time": [None], "code": ["female"]})])
    assert open_store(url).state != before


def test_a_server_that_stumbles_is_asked_again(store, faulty):
    stumbles = {"/data/0000.parquet": 2}

    def fault(handler):
        stumble = handler.command == "GET" and stumbles.get(handler.path, 0) > 0
        if stumble:
            stumbles[handler.path] -= 1
            handler.send_error(503)
        return stumble

    served = open_store(faulty(fault))
    assert_frame_equal(served.read(served.shards[0]), store.read(store.shards[0]))
    assert stumbles == {"/data/0000.parquet": 0}


def test_a_server_that_fails_is_not_taken_for_a_shard_that_has_gone(faulty):
    came = []

    def fault(handler):
        failing = bool(came) and handler.path == "/data/0000.parquet"
        if failing:
            handler.send_error(500)
        elif handler.command == "GET" and handler.path == "/data/0000.parquet":
            came.append(handler.path)
        return failing

    served = open_store(faulty(fault))
    with pytest.raises(WeibingError, match=r"0000.parquet cannot be read: "):
        served.read(served.shards[0])
    assert came


def test_half_a_file_is_never_read(faulty, scratch):
    def fault(handler):
        half = handler.command == "GET" and handler.path == "/data/0000.parquet"
        if half:
            handler.send_response(200)
            handler.send_header("Content-Length", "100")
            handler.end_headers()
            handler.wfile.write(b"PAR1" * 25)
        return half

    served = open_store(faulty(fault))
    with pytest.raises(WeibingError, match=r"0000.parquet cannot be read: OSError: 100 of \S+ bytes came"):
        served.read(served.shards[0])
    assert not [*scratch.iterdir()]


def test_access_that_is_denied_is_said_and_not_asked_for_again(faulty):
    asked = []

    def fault(handler):
        asked.append(handler.path)
        handler.send_error(403)
        return True

    with pytest.raises(WeibingError, match=r"Access to http\S+/metadata/weibing.json is denied. Give the driver a key"):
        open_store(faulty(fault))
    assert asked == ["/metadata/weibing.json"]


def test_access_denied_to_a_shard_alone_is_said(faulty):
    served = open_store(faulty(lambda handler: handler.path.endswith("0001.parquet") and _denied(handler)))
    with pytest.raises(WeibingError, match=r"Access to http\S+/data/0001.parquet is denied"):
        served.read(served.shards[1])


def _denied(handler) -> bool:
    if handler.command == "GET":
        handler.send_error(403)
    return handler.command == "GET"


def test_where_no_store_is_this_is_said(tmp_path, url):
    for nowhere in (f"file://{tmp_path}/nowhere", f"{url}/nowhere"):
        with pytest.raises(WeibingError, match=f"There is no event store at {nowhere}. Upload the whole folder"):
            open_store(nowhere)


def test_a_server_that_does_not_answer_is_named():
    with pytest.raises(WeibingError, match=r"http://127.0.0.1:1/store/metadata/weibing.json cannot be read: .*connect"):
        open_store("http://127.0.0.1:1/store")


def test_a_driver_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(WeibingError, match=r"s3://bucket/county\S* needs a driver that is not installed: Install s3fs"):
        open_store("s3://bucket/county")


def test_a_kind_of_place_that_does_not_exist_is_named():
    with pytest.raises(WeibingError, match=r"sss://bucket/county\S* is no place that can be read: .*sss"):
        open_store("sss://bucket/county")


@pytest.mark.parametrize("url", ["http://doctor:geheim@host/county", "https://host/county?sig=geheim"])
def test_a_url_with_a_password_or_a_signature_is_refused_without_repeating_it(url):
    with pytest.raises(WeibingError, match=r"at https?://host holds a password or a query") as refused:
        open_store(url)
    assert "geheim" not in str(refused.value)


def test_a_damaged_description_is_named(store):
    (store.path / "metadata" / "weibing.json").write_text("{")
    with pytest.raises(WeibingError, match=r"metadata/weibing.json is not JSON in UTF-8"):
        open_store(f"file://{store.path}")
