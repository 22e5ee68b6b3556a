from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore
from serving.scoring import NotAtRisk, Score, Scorer, score_one
from serving.scoring.nightly import Options, night
from serving.scoring.parquet import FileLedger
from serving.scoring.shard import DRIVERS_KEPT
from tests.tables import events_from
from training.calibrate import logit
from training.model import RiskModel
from training.train import Trained

INDEX = datetime(2018, 1, 1)
NOW = datetime(2018, 2, 1)
WITH_BIRTH = "1950-01-01  | MEDS_BIRTH |"


def history(table: str) -> pl.DataFrame:
    """Read events of resident 7 drawn as `time | code | value | unit`; the last cells may be left out."""
    lines = [line + " |" * (3 - line.count("|")) for line in table.strip().splitlines()]
    return events_from("\n".join(["time | code | value | unit", *lines]), subject_id=7)


NOBODY = history(WITH_BIRTH).clear()


@pytest.fixture(scope="session")
def models(small_trained: Trained) -> dict[str, RiskModel]:
    return {"hypertension": small_trained.model.with_version("3")}


@pytest.fixture(scope="session")
def scorer(models: dict[str, RiskModel]) -> Scorer:
    return Scorer(models, Engine())


def scored(store: EventStore, models: dict[str, RiskModel], path: Path, at: datetime = INDEX) -> pl.DataFrame:
    night(store, [FileLedger(path)], models, NOW, Options(index_time=at))
    return pl.read_parquet(path)


@pytest.fixture(scope="session")
def table(
    small_store: EventStore, models: dict[str, RiskModel], tmp_path_factory: pytest.TempPathFactory
) -> pl.DataFrame:
    return scored(small_store, models, tmp_path_factory.mktemp("scores") / "scores.parquet")


def the_score(scorer: Scorer, table: str, **options: object) -> Score:
    [score] = scorer.one(history(table), 7, INDEX, NOW, **options)
    assert isinstance(score, Score), score
    return score


def test_the_base_and_all_contributions_are_the_log_odds(scorer: Scorer, small_store: EventStore) -> None:
    for subject in small_store.residents()[:60].tolist():
        for score in scorer.one(small_store.resident(subject), subject, INDEX, NOW):
            if isinstance(score, Score):
                total = score.base + sum(driver.contribution for driver in score.drivers)
                assert total == pytest.approx(logit(np.array(score.probability)), abs=1e-9)
                assert score.other == 0


@pytest.mark.parametrize("most", [0, 1, 3])
def test_what_is_left_out_of_the_drivers_is_kept_as_their_sum(scorer: Scorer, most: int) -> None:
    every = the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | 135")
    few = the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | 135", most=most)
    assert few.drivers == every.drivers[:most]
    assert few.other == pytest.approx(sum(driver.contribution for driver in every.drivers[most:]), abs=1e-12)


def test_the_greatest_contribution_comes_first(scorer: Scorer) -> None:
    sizes = [abs(driver.contribution) for driver in the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | 139").drivers]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_the_table_holds_for_each_resident_what_the_single_call_says(
    table: pl.DataFrame, scorer: Scorer, small_store: EventStore
) -> None:
    rows = {row["subject_id"]: row for row in table.iter_rows(named=True)}
    for subject in small_store.residents()[:250].tolist():
        events = small_store.resident(subject)
        [answer] = scorer.one(events, subject, INDEX, NOW, most=DRIVERS_KEPT)
        if isinstance(answer, NotAtRisk):
            assert subject not in rows
            continue
        if subject not in rows:
            assert not len(events.filter((pl.col("time") < INDEX) & (pl.col("code") != "MEDS_BIRTH")))
            continue
        told = rows[subject]
        fields = (
            "probability",
            "lower",
            "upper",
            "tier",
            "percentile",
            "completeness",
            "base",
            "other",
            "model_version",
            "synthetic",
        )
        assert {name: told[name] for name in fields} == {name: getattr(answer, name) for name in fields}
        assert [(d["concept"], d["contribution"], d["unit"], d["date"]) for d in told["drivers"]] == [
            (d.concept, d.contribution, d.unit, d.date) for d in answer.drivers
        ]
        assert [d["value"] for d in told["drivers"]] == [
            None if d.value is None else float(np.float32(d.value)) for d in answer.drivers
        ]


def _single(value: float | None) -> np.float32 | None:
    return None if value is None else np.float32(value)


def test_many_residents_get_the_scores_that_each_gets_alone(scorer: Scorer, small_store: EventStore) -> None:
    subjects = small_store.residents()[:20].tolist()
    moments = [INDEX + timedelta(days=30 * number) for number in range(20)]
    events = [small_store.resident(subject) for subject in subjects]
    together = scorer.many(
        pl.concat([of.with_columns(pl.lit(n, pl.Int64).alias("subject_id")) for n, of in enumerate(events)]),
        subjects,
        moments,
        NOW,
    )
    alone = [scorer.one(of, s, moment, NOW) for of, s, moment in zip(events, subjects, moments, strict=True)]
    assert together == alone
    assert any(isinstance(answers[0], Score) for answers in alone)


@pytest.mark.parametrize("at", ["2018-01-01", "2018-01-02", "2019-06-01"])
@pytest.mark.parametrize("code", ["sbp", "hypertension", "MEDS_DEATH", "OBSERVATION_END", "examination", "fall"])
def test_nothing_at_or_after_the_index_time_changes_a_score(scorer: Scorer, code: str, at: str) -> None:
    known = f"{WITH_BIRTH}\n2017-05-01 | sbp | 135"
    value = "180" if code == "sbp" else ""
    assert the_score(scorer, f"{known}\n{at} | {code} | {value}") == the_score(scorer, known)


def test_a_driver_shows_the_latest_usable_value_in_the_canonical_unit(scorer: Scorer) -> None:
    score = the_score(
        scorer,
        f"""{WITH_BIRTH}
        2015-01-01          | sbp | 120
        2017-05-01 08:00:00 | sbp | 16   | kPa
        2017-06-01          | sbp | 999
        2017-07-01          | sbp | 130  | furlong
        2018-01-01          | sbp | 190
        """,
    )
    [driver] = [driver for driver in score.drivers if driver.concept == "sbp"]
    # 16 kPa are 16 × 7.50062 = 120.00992 mm[Hg], as a single 120.00992.
    assert (driver.value, driver.unit, driver.date) == (120.00992, "mm[Hg]", datetime(2017, 5, 1, 8))
    assert driver.label_zh == "收缩压"
    assert driver.modifiable


def test_a_driver_is_the_sum_of_the_contributions_of_its_concept(
    scorer: Scorer, models: dict[str, RiskModel], small_store: EventStore, table: pl.DataFrame
) -> None:
    subject = table["subject_id"][0]
    model, events = models["hypertension"], small_store.resident(subject)
    index = pl.DataFrame({"subject_id": [subject], "index_time": [INDEX]})
    concepts, shares = model.by_concept(model.contributions(model.matrix(Engine().profiles(events, index))))
    [score] = scorer.one(events, subject, INDEX, NOW)
    assert isinstance(score, Score)
    told = {driver.concept: driver.contribution for driver in score.drivers}
    assert told == pytest.approx(dict(zip(concepts, shares[0].tolist(), strict=True)), abs=1e-12)


def test_what_always_holds_goes_before_what_is_dated(scorer: Scorer) -> None:
    score = the_score(scorer, f"{WITH_BIRTH}\n | female | 1\n2017-05-01 | female | 0")
    assert [(driver.value, driver.date) for driver in score.drivers if driver.concept == "female"] == [(1, None)]


def test_values_of_one_moment_are_shown_as_their_mean(scorer: Scorer) -> None:
    score = the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | 130\n2017-05-01 | sbp | 137")
    assert [driver.value for driver in score.drivers if driver.concept == "sbp"] == [(130 + 137) / 2]


def test_the_age_is_shown_at_the_index_time(scorer: Scorer) -> None:
    score = the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | 130")
    [age] = [driver for driver in score.drivers if driver.concept == "age"]
    assert (age.value, age.date) == (2018 - 1950, None)


@pytest.mark.parametrize(("born", "age"), [("1950-01-01", 68), ("1950-01-02", 67), ("2017-12-31 16:30:00", 0)])
def test_a_year_of_age_is_full_on_the_birthday_in_the_county(models: dict[str, RiskModel], born: str, age: int) -> None:
    """In Shanghai, eight hours ahead of UTC, INDEX lies on the first of January."""
    [answer] = Scorer({"any age": at_any_age(models["hypertension"])}, Engine()).one(
        history(f"{born} | MEDS_BIRTH |\n2017-05-01 | sbp | 130"), 7, INDEX, NOW
    )
    assert isinstance(answer, Score)
    assert [driver.value for driver in answer.drivers if driver.concept == "age"] == [age]


def at_any_age(model: RiskModel) -> RiskModel:
    return replace(model, card=replace(model.card, target=replace(model.card.target, age=(0, np.inf))))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("2016-01-01 | hypertension |", "with hypertension"),
        ("2016-01-01 | antihypertensive |", "with antihypertensive"),
        ("           | hypertension |", "with hypertension"),
        ("2010-01-01 | MEDS_BIRTH |", "age not at least 18"),
        ("2018-01-01 | MEDS_BIRTH |", "not yet born at the index time"),
        ("2016-01-01 | MEDS_DEATH |", "died before the index time"),
        ("2016-01-01 | OBSERVATION_END |", "moved away before the index time"),
        ("2016-01-01 | MEDS_DEATH |\n2015-01-01 | hypertension |", "died before the index time"),
    ],
)
def test_who_is_not_at_risk_gets_the_reason(scorer: Scorer, table: str, reason: str) -> None:
    assert scorer.one(history(table), 7, INDEX, NOW) == [NotAtRisk(7, "hypertension", INDEX, reason)]


@pytest.mark.parametrize(
    "table",
    [
        "2017-05-01 | sbp | 130",
        "2003-05-01 | sbp | 130",
        "2020-01-01 | sbp | 190",
        "2017-05-01 | LOCAL//nobody knows |",
    ],
    ids=["no birth", "nothing recent", "only later", "only unknown codes"],
)
def test_who_cannot_be_shown_to_be_outside_is_scored(scorer: Scorer, table: str) -> None:
    score = the_score(scorer, table)
    assert 0 < score.lower <= score.probability <= score.upper < 1


def test_a_resident_without_events_is_scored_with_low_completeness(models: dict[str, RiskModel]) -> None:
    [score] = score_one(NOBODY, INDEX, models, Engine(), NOW)
    assert isinstance(score, Score)
    assert score.completeness == "low"
    assert {(driver.value, driver.date) for driver in score.drivers} == {(None, None)}


def test_a_well_known_resident_is_scored_with_high_completeness(scorer: Scorer) -> None:
    known = "\n".join(
        f"{year}-05-01 | {code} | {value}"
        for year in range(2013, 2018)
        for code, value in {"sbp": 128, "bmi": 25, "hba1c": 5.6, "examination": ""}.items()
    )
    assert the_score(scorer, f"{WITH_BIRTH}\n | female | 1\n{known}").completeness == "high"


def test_a_score_says_which_model_when_and_on_what_records(scorer: Scorer) -> None:
    score = the_score(scorer, WITH_BIRTH)
    assert (score.subject_id, score.index_time, score.scored_at) == (7, INDEX, NOW)
    assert (score.model_version, score.synthetic) == ("3", True)


def test_a_higher_pressure_does_not_lower_the_score(scorer: Scorer) -> None:
    risks = [the_score(scorer, f"{WITH_BIRTH}\n2017-05-01 | sbp | {sbp}").probability for sbp in range(100, 180, 10)]
    assert risks == sorted(risks)
    assert risks[-1] > risks[0]


def test_answers_come_for_the_targets_asked_for_in_their_order(models: dict[str, RiskModel]) -> None:
    model = models["hypertension"]
    falls = replace(model, card=replace(model.card, target=replace(model.card.target, name="fall", absent=())))
    both = Scorer({**models, "fall": falls}, Engine())
    events = history("2016-01-01 | hypertension |")
    assert [type(each) for each in both.one(events, 7, INDEX, NOW)] == [NotAtRisk, NotAtRisk]
    reversed_order = both.one(history(WITH_BIRTH), 7, INDEX, NOW, targets=["fall", "hypertension"])
    assert [each.target for each in reversed_order] == ["fall", "hypertension"]
    assert len(both.one(history(WITH_BIRTH), 7, INDEX, NOW, targets=["fall"])) == 1


def test_a_model_that_needs_another_declaration_is_refused(models: dict[str, RiskModel]) -> None:
    model = models["hypertension"]
    other = replace(model, card=replace(model.card, features=("moon_phase", *model.card.features[1:])))
    with pytest.raises(WeibingError, match=r"hypertension needs features .*: moon_phase\. Train it again"):
        Scorer({"hypertension": other}, Engine())


def test_only_residents_with_records_before_the_index_time_are_in_the_table(
    small_store: EventStore, models: dict[str, RiskModel], tmp_path: Path
) -> None:
    early = datetime(2012, 6, 1)
    events = pl.concat([small_store.read(shard) for shard in small_store.shards])
    known = events.filter((pl.col("time") < early) & (pl.col("code") != "MEDS_BIRTH"))["subject_id"].unique()
    found = scored(small_store, models, tmp_path / "scores.parquet", early)["subject_id"]
    assert 0 < len(found) < len(small_store.residents())
    assert set(found) <= set(known)


def test_nobody_at_risk_is_a_mistake_and_leaves_no_file(
    small_store: EventStore, models: dict[str, RiskModel], tmp_path: Path
) -> None:
    path = tmp_path / "scores.parquet"
    with pytest.raises(WeibingError, match=r"Nobody in .* at 2050-01-01: .*moved away before the index time"):
        scored(small_store, models, path, datetime(2050, 1, 1))
    assert list(tmp_path.iterdir()) == []


def test_the_reasons_of_every_row_of_the_table_add_up(table: pl.DataFrame) -> None:
    named = table["drivers"].list.eval(pl.element().struct.field("contribution")).list.sum()
    off = (table["base"] + named + table["other"]) - pl.Series(logit(table["probability"].to_numpy()))
    assert len(table) > 100
    assert off.abs().max() < 1e-9
