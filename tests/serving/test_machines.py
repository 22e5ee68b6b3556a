"""A run on several processes, which may be killed: the same scores as in one process, and refusals in a sentence."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import dask
import polars as pl
import psutil
import pytest
from distributed import Client, LocalCluster

from features.errors import WeibingError
from features.events import EventStore
from features.profile import declared
from features.remote import RemoteStore, open_store
from serving.scoring import machines
from serving.scoring.machines import on_cluster, on_workers
from serving.scoring.nightly import Night, Options, Walk, night
from serving.scoring.parquet import FileLedger
from serving.scoring.pieces import Piece, pieces_of
from serving.scoring.run import Failure, Ledger, Run, ShardScores, Tally
from serving.scoring.shard import Entry, Job, KeepingError
from serving.store.ledger import DatabaseLedger
from serving.store.queries import current_scores
from tests.postgres import new_database, postgres_server
from tests.serving.nights import INDEX, NOW, SHARDS, sharded_copy
from training import machines as training_machines
from training.model import RiskModel
from training.train import Trained

WORKERS = 2
MEMORY = 8_000_000_000


@dataclass(frozen=True)
class Faulty(FileLedger):
    """Kept in a file, but for one piece whose keeping goes wrong, so many times; each leaves a mark in a folder."""

    marks: Path
    place: int
    times: int = 1
    fault: str = "death"

    def write(self, run: Run, scores: ShardScores) -> None:
        if scores.place == self.place and self.happened < self.times:
            (self.marks / f"{monotonic()}").touch()
            if self.fault == "death":
                os.kill(os.getpid(), signal.SIGKILL)
            raise WeibingError("full") if self.fault == "full" else ZeroDivisionError
        super().write(run, scores)

    @property
    def happened(self) -> int:
        return len([*self.marks.iterdir()])


@dataclass(frozen=True)
class Counted(FileLedger):
    """Leaves a mark with the number of the process wherever it arrives."""

    marks: Path

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        (self.marks / f"{os.getpid()} {monotonic()}").touch()


@pytest.fixture(scope="module")
def store(small_store: EventStore, tmp_path_factory: pytest.TempPathFactory) -> EventStore:
    return sharded_copy(small_store, tmp_path_factory.mktemp("machines") / "county")


@pytest.fixture(scope="module")
def models(small_trained: Trained) -> dict[str, RiskModel]:
    return {"hypertension": small_trained.model.with_version("3")}


@contextmanager
def workers(folder: Path, number: int = WORKERS) -> Iterator[LocalCluster]:
    with (
        dask.config.set({"temporary-directory": str(folder)}),
        LocalCluster(
            n_workers=number, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0"
        ) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with workers(tmp_path_factory.mktemp("dask")) as started:
        yield started


@pytest.fixture
def address(cluster: LocalCluster) -> str:
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(WORKERS)
    return cluster.scheduler_address


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


@pytest.fixture
def faulty(tmp_path: Path, marks: Path) -> "Iterator[object]":
    return lambda **fault: Faulty(tmp_path / "faulty.parquet", marks, **fault)


@pytest.fixture(scope="module")
def undisturbed(store, models, tmp_path_factory) -> pl.DataFrame:
    """What one process keeps."""
    ledger = FileLedger(tmp_path_factory.mktemp("one") / "scores.parquet")
    ran(store, [ledger], models, None)
    return kept(ledger)


def ran(
    store: EventStore | RemoteStore, ledgers: Sequence[Ledger], models: Mapping[str, RiskModel], walk: Walk | None
) -> Night:
    return night(store, ledgers, models, NOW, Options(index_time=INDEX, walk=walk))


def kept(ledger: Ledger) -> pl.DataFrame:
    if isinstance(ledger, FileLedger):
        return pl.read_parquet(ledger.path)
    # Residents are numbered as they arrive, and shards come in any order.
    return current_scores(ledger.database.engine, ledger.residents()["subject_id"]).drop("resident_id")


def nobodys(store: EventStore, ledger: Ledger) -> Job:
    """A job without models, which is quickly done."""
    return Job(store, {}, declared(), (Entry(ledger, ledger.begin(Run(0, INDEX, NOW, store.state, {})), None),), NOW)


def walked(walk: Walk, store: EventStore, ledger: Ledger) -> tuple[list[str], list[Failure]]:
    """Walk all pieces; return the names of those that were scored, in order, and the failures."""
    told = [*walk(nobodys(store, ledger), pieces_of(store, MEMORY))]
    scored = sorted(each.shard for each in told if isinstance(each, Tally))
    return scored, [each for each in told if isinstance(each, Failure)]


def names(pieces: Sequence[Piece]) -> list[str]:
    return [piece.name for piece in pieces]


def test_a_run_whose_workers_are_killed_keeps_what_an_undisturbed_one_keeps(
    store, models, tmp_path, tmp_path_factory, undisturbed
):
    with postgres_server(tmp_path_factory.mktemp("pg")) as server:
        before, after = (tmp_path / name for name in ("before", "after"))
        before.mkdir()
        after.mkdir()
        ledgers = [
            Faulty(tmp_path / "first.parquet", before, place=1),
            DatabaseLedger.open(f"sqlite:///{tmp_path}/scores.db"),
            DatabaseLedger.open(new_database(server)),
            Faulty(tmp_path / "last.parquet", after, place=4),
        ]
        found = ran(store, ledgers, models, on_workers(WORKERS))
        assert [len([*marks.iterdir()]) for marks in (before, after)] == [1, 1]
        assert found.counts["scored"] == len(undisturbed) > 50
        for ledger in (ledgers[0], ledgers[3]):
            assert kept(ledger).equals(undisturbed)
        expected = kept_in_a_database(store, models, tmp_path)
        assert len(expected) == len(undisturbed)
        for ledger in ledgers[1:3]:
            assert kept(ledger).equals(expected)


def kept_in_a_database(store: EventStore, models: Mapping[str, RiskModel], folder: Path) -> pl.DataFrame:
    """What one process keeps."""
    ledger = DatabaseLedger.open(f"sqlite:///{folder}/one.db")
    ran(store, [ledger], models, None)
    return kept(ledger)


def test_a_cluster_that_loses_a_worker_keeps_what_one_process_keeps(store, models, address, tmp_path, undisturbed):
    ledger = FileLedger(tmp_path / "scores.parquet")

    def bereft(job: Job, pieces: Sequence[Piece]) -> Iterator[Tally | Failure]:
        for number, told in enumerate(on_cluster(address)(job, pieces)):
            if not number:
                with Client(address, set_as_default=False) as client:
                    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            yield told

    ran(store, [ledger], models, bereft)
    assert kept(ledger).equals(undisturbed)


def test_a_store_on_a_web_server_gives_the_rows_of_the_store_on_the_disk(store, models, address, tmp_path, undisturbed):
    ledger = FileLedger(tmp_path / "scores.parquet")
    with served(store) as url:
        ran(open_store(url), [ledger], models, on_cluster(address))
    assert kept(ledger).equals(undisturbed)


@contextmanager
def served(store: EventStore) -> Iterator[str]:
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", store.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().split('port ')[1].split()[0]}"
        server.terminate()


def test_the_job_arrives_once_at_each_worker(store, address, tmp_path, marks):
    walked(on_cluster(address), store, Counted(tmp_path / "scores.parquet", marks))
    arrived = [mark.name.split()[0] for mark in marks.iterdir()]
    assert 1 <= len(arrived) == len(set(arrived)) <= WORKERS


def test_a_piece_that_ends_every_worker_is_given_up_by_name_and_the_others_are_scored(
    store, faulty, tmp_path, monkeypatch
):
    monkeypatch.setattr(machines, "DEATHS_FORGIVEN", 0)
    pieces = names(pieces_of(store, MEMORY))
    deadly = faulty(place=2, times=100)
    scored, failures = walked(on_workers(WORKERS), store, deadly)
    assert scored == [*pieces[:2], *pieces[3:]]
    assert [failure.shard for failure in failures] == [pieces[2]]
    assert failures[0].reason.startswith(f"{pieces[2]} ended every worker that worked on it")
    # Once among others, once alone.
    assert deadly.happened == 2


def test_a_shard_that_cannot_be_read_is_a_failure_with_its_reason(store, address, tmp_path):
    damaged = sharded_copy(store, tmp_path / "county")
    whole = damaged.shards[3].read_bytes()
    damaged.shards[3].write_bytes(whole[: len(whole) // 2])
    scored, failures = walked(on_cluster(address), damaged, FileLedger(tmp_path / "scores.parquet"))
    assert len(scored) == SHARDS - 1
    assert [failure.shard for failure in failures] == ["data/0003.parquet"]
    assert "0003.parquet cannot be read" in failures[0].reason


def test_where_scores_cannot_be_kept_the_run_stops(store, address, faulty):
    full = faulty(place=0, times=100, fault="full")
    with pytest.raises(KeepingError, match="full"):
        walked(on_cluster(address), store, full)
    assert full.happened == 1


def test_a_fault_of_the_program_keeps_its_traceback(store, address, faulty):
    wrong = faulty(place=0, times=100, fault="bug")
    with pytest.raises(ZeroDivisionError):
        walked(on_cluster(address), store, wrong)
    assert wrong.happened == 1


def test_a_scheduler_that_does_not_answer_is_named(store, tmp_path, monkeypatch):
    monkeypatch.setattr(training_machines, "SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(WeibingError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        walked(on_cluster("tcp://127.0.0.1:1"), store, FileLedger(tmp_path / "scores.parquet"))


def test_a_cluster_behind_tls_needs_certificates(store, tmp_path):
    with pytest.raises(WeibingError, match=r"tls://127\.0\.0\.1:1 needs certificates"):
        walked(on_cluster("tls://127.0.0.1:1"), store, FileLedger(tmp_path / "scores.parquet"))


def test_a_cluster_without_workers_is_said(store, tmp_path):
    with workers(tmp_path, 0) as nobody, pytest.raises(WeibingError, match=r"The Dask cluster at \S+ has no workers"):
        walked(on_cluster(nobody.scheduler_address), store, FileLedger(tmp_path / "scores.parquet"))


def test_a_cluster_that_has_lost_all_workers_is_not_waited_for(store, tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "SECONDS_WITHOUT_WORKERS", 0.5)
    monkeypatch.setattr(machines, "SECONDS_BETWEEN_LOOKS", 0.1)
    with workers(tmp_path, 1) as doomed:
        walk = on_cluster(doomed.scheduler_address)
        told = walk(nobodys(store, FileLedger(tmp_path / "scores.parquet")), pieces_of(store, MEMORY))
        assert isinstance(next(told), Tally)
        doomed.scale(0)
        with pytest.raises(WeibingError, match=r"has had no workers for .* start the run again"):
            list(told)


def test_a_worker_that_finds_another_store_at_the_url_is_refused(store, address, tmp_path):
    copy = sharded_copy(store, tmp_path / "county")
    opened = open_store(f"file://{copy.path}")
    job = nobodys(opened, FileLedger(tmp_path / "scores.parquet"))
    os.utime(copy.shards[0], (1e9, 1e9))
    with pytest.raises(WeibingError, match=r"does not see the store file://\S+ as it was when it was opened"):
        next(on_cluster(address)(job, pieces_of(opened, MEMORY)))


def test_the_processes_listen_on_this_machine_alone_and_end_with_ctrl_c(store, tmp_path):
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=interrupted, args=(store, tmp_path))
    parent.start()
    while parent.is_alive() and not (tmp_path / "first").exists():
        sleep(0.05)
    assert listening(parent.pid) == {"127.0.0.1"}
    theirs = of_the_group(parent.pid)
    assert len(theirs) > WORKERS
    os.killpg(parent.pid, signal.SIGINT)
    parent.join(30)
    assert parent.exitcode == 7
    assert not of_the_group(parent.pid)


def of_the_group(leader: int) -> list[psutil.Process]:
    """Return the processes that Ctrl-C reaches, as a terminal would have it."""
    return [each for each in psutil.process_iter() if each.is_running() and group_of(each.pid) == leader]


def group_of(process: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process)


def listening(leader: int) -> set[str]:
    """Return the addresses on which the processes of a group can be reached."""
    sockets = [each for process in of_the_group(leader) for each in process.net_connections("inet")]
    return {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}


def interrupted(store: EventStore, folder: Path) -> None:
    """Score in a group of processes of its own until somebody presses Ctrl-C."""
    os.setpgid(0, 0)
    pieces = pieces_of(store, MEMORY)
    try:
        for _ in on_workers(WORKERS)(nobodys(store, FileLedger(folder / "scores.parquet")), pieces * 1000):
            (folder / "first").touch()
    except KeyboardInterrupt:
        sys.exit(7)
