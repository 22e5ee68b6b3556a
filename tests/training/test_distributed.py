"""Training on a Dask cluster of two processes: the same evidence as on one machine, and refusals in a sentence."""

import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass

import dask
import numpy as np
import polars as pl
import pytest
from distributed import Client, LocalCluster

from features import events
from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore
from tests.conftest import SMALL_TARGET, events_of, residents_of
from training import machines
from training.distributed import boosters_on_cluster, elsewhere_on, folds_of_all
from training.fit import FOLDS, Rows, grow, monotone
from training.sample import sample_of
from training.train import rows_of
from training.validate import Validation, validate

WORKERS = 2
ROUNDS = 5


@dataclass(frozen=True)
class Case:
    """A store in four shards, and what is trained on it."""

    store: EventStore
    engine: Engine
    cohort: pl.DataFrame
    rows: Rows

    def boosters(self, address: str, cohort: pl.DataFrame | None = None, **keywords):
        direction = monotone(self.rows.features, SMALL_TARGET, self.engine)
        parameters = {"objective": "binary", "num_leaves": 8, "monotone_constraints": direction, "num_threads": 1}
        parameters |= {"seed": 0, "deterministic": True, "verbosity": -1, "bagging_freq": 1, "bagging_fraction": 0.7}
        cohort = self.folded if cohort is None else cohort
        return boosters_on_cluster(
            address, self.store, cohort, self.rows.features, self.engine, parameters, ROUNDS, **keywords
        )

    @property
    def folded(self) -> pl.DataFrame:
        return self.cohort.with_columns(fold=self.rows.person % FOLDS)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    rng = np.random.default_rng(7)
    store = EventStore.create(tmp_path_factory.mktemp("shared") / "store", timezone="Asia/Shanghai")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "RESIDENTS_PER_SHARD", 200)
        store.append([events_of(rng, residents_of(rng, 800))])
    engine = Engine.of_store(store)
    sample = sample_of(store, SMALL_TARGET, engine)
    cohort = sample.cohort.rows.select("subject_id", "index_time").with_columns(
        outcome=sample.outcome, weight=sample.weight
    )
    return Case(store, engine, cohort, rows_of(sample, engine)[0])


@contextmanager
def two_workers(folder: str):
    """Two worker processes of one thread and 1 GiB each, without a dashboard."""
    with (
        dask.config.set({"temporary-directory": folder, "distributed.dashboard.link": ""}),
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            memory_limit="1GiB",
            dashboard_address=None,
            local_directory=folder,
        ) as started,
        Client(started, set_as_default=False) as client,
    ):
        # One that comes late would leave the first run to the other alone, and its trees would be others.
        client.wait_for_workers(WORKERS)
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Workers that live through all tests: another in the place of one would have another rank, and other trees."""
    with two_workers(str(tmp_path_factory.mktemp("dask"))) as started:
        yield started


@pytest.fixture
def address(cluster) -> str:
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(WORKERS)
    return cluster.scheduler_address


@pytest.fixture(scope="module")
def local(case):
    return grow(case.rows, SMALL_TARGET, case.engine)


@pytest.fixture(scope="module")
def boosters(case, cluster):
    """Trees of all rows, and those without each fold."""
    return case.boosters(cluster.scheduler_address)


def on_cluster(case: Case, address: str):
    elsewhere = elsewhere_on(address, case.store, case.cohort, case.rows.person, case.rows.features, case.engine)
    return grow(case.rows, SMALL_TARGET, case.engine, elsewhere=elsewhere)


def validation_of(case: Case, grown) -> Validation:
    known = case.rows.known
    return validate(
        case.rows.outcome[known], grown.risk[known], case.rows.weight[known], case.rows.person[known], replicates=50
    )


def test_a_model_grown_on_the_cluster_is_as_good_and_measured_in_the_same_way(case, address, local):
    assert len(case.store.shards) > WORKERS
    grown = on_cluster(case, address)
    here, there = validation_of(case, local), validation_of(case, grown)
    assert there.metrics["auroc"].estimate == pytest.approx(here.metrics["auroc"].estimate, abs=0.01)
    assert (there.n, there.residents, there.events) == (here.n, here.residents, here.events)
    assert (grown.recipe, grown.fold.tolist()) == (local.recipe, local.fold.tolist())
    assert np.isfinite(grown.margin).all()
    assert len(grown.folds) == FOLDS


def test_trees_from_the_cluster_bear_the_features_names_and_no_addresses(case, boosters):
    whole, _ = boosters
    assert tuple(whole.feature_name()) == case.rows.features
    assert whole.num_trees() == ROUNDS
    assert "machines" not in whole.model_to_string()
    assert "listen_port" not in whole.model_to_string()


def test_the_same_store_and_workers_give_the_same_trees(case, address, boosters):
    first, second = boosters, case.boosters(address)
    assert first[0].model_to_string() == second[0].model_to_string()
    assert [fold.model_to_string() for fold in first[1]] == [fold.model_to_string() for fold in second[1]]


def test_trees_of_a_fold_have_not_seen_it(case, address, boosters):
    turned = case.folded.with_columns(
        outcome=pl.when(pl.col("fold") == 1).then(1 - pl.col("outcome")).otherwise("outcome")
    )
    (whole, folds), (other_whole, other_folds) = boosters, case.boosters(address, turned)
    same = [a.model_to_string() == b.model_to_string() for a, b in zip(folds, other_folds, strict=True)]
    assert same == [fold == 1 for fold in range(FOLDS)]
    assert whole.model_to_string() != other_whole.model_to_string()


def test_rows_whose_outcome_is_unknown_teach_nothing(case, address, boosters, capfd):
    unknown = case.folded.with_columns(
        outcome=pl.when(pl.col("weight") == 0).then(1 - pl.col("outcome")).otherwise("outcome")
    )
    assert (unknown["weight"] == 0).any()
    assert boosters[0].model_to_string() == case.boosters(address, unknown)[0].model_to_string()
    # Results go to stdout, and so nothing that LightGBM says here does. The workers of this cluster share it.
    assert "open ports" not in capfd.readouterr().out


def test_what_is_worse_when_more_never_lowers_a_margin_of_trees_from_the_cluster(case, boosters):
    whole, _ = boosters
    place = case.rows.features.index("sbp_latest")
    raised = case.rows.matrix.copy()
    raised[:, place] += 20
    rise = whole.predict(raised, raw_score=True) - whole.predict(case.rows.matrix, raw_score=True)
    assert (rise[~np.isnan(case.rows.matrix[:, place])] >= 0).all()
    assert (rise > 0).any()


def test_residents_outside_the_sample_get_a_fold_of_their_own_and_all_others_keep_theirs():
    person = np.repeat(np.arange(1000), 2)
    sampled, fold = np.array([5, 5, 7, 900]), np.array([3, 3, 0, 4])
    given = folds_of_all(person, sampled, fold, seed=0)
    assert given[[10, 11, 14, 15, 1800, 1801]].tolist() == [3, 3, 0, 0, 4, 4]
    assert (given[::2] == given[1::2]).all()
    assert np.bincount(given[::2], minlength=FOLDS).min() > 150


def test_a_scheduler_that_does_not_answer_is_named(case, monkeypatch):
    monkeypatch.setattr(machines, "SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(WeibingError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        case.boosters("tcp://127.0.0.1:1")


def test_an_address_that_is_none_is_refused(case, monkeypatch):
    monkeypatch.setattr(machines, "SECONDS_TO_ANSWER", 0.5)
    with pytest.raises(WeibingError, match="No Dask scheduler answers at nowhere://x"):
        case.boosters("nowhere://x")


def test_a_worker_with_other_versions_is_refused(case, address, monkeypatch):
    monkeypatch.setattr(machines, "version", lambda name: "0.0.1")
    with pytest.raises(WeibingError, match=r"The worker tcp://\S+ runs weibing \S+, not 0.0.1; lightgbm"):
        case.boosters(address)


def test_a_worker_that_does_not_see_the_store_is_refused(case, address):
    blind = "from training import machines as d; d.there, d._seen = d._seen, lambda p: d.there(p) | {'shards': ''}"
    with Client(address, set_as_default=False) as client:
        one = next(iter(client.nthreads()))
        client.run(exec, blind, {}, workers=[one])
        try:
            with pytest.raises(WeibingError, match=r"does not see the store .* Put the store on a disk that all share"):
                case.boosters(address)
        finally:
            client.run(exec, "from training import machines as d; d._seen = d.there", {}, workers=[one])


def test_a_worker_lost_while_it_trains_is_said_and_not_waited_for(case, tmp_path):
    with two_workers(str(tmp_path)) as doomed:

        def kill(said: str) -> None:
            if "without fold 1" in said:
                with Client(doomed.scheduler_address, set_as_default=False) as client:
                    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

        with pytest.raises(WeibingError, match="The Dask cluster lost its worker tcp://"):
            case.boosters(doomed.scheduler_address, progress=kill)
