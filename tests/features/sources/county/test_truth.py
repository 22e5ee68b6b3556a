"""The true risks are the probabilities of what the targets' own phenotypes find in the records."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from features.cohort import cohort
from features.sources.county import BLOCK
from features.sources.county.course import live_through, past
from features.sources.county.dice import Dice
from features.sources.county.fall_risk import Recall, fall_risk
from features.sources.county.hazards import LEVELS, STATES, Rates
from features.sources.county.period import Period
from features.sources.county.residents import settle
from features.sources.county.risk import HORIZON_YEARS, Law, cumulative_incidence, recorded_risk
from training.targets import TARGETS

# Index years whose windows do not overlap, so that what is left unexplained of each is independent.
INDEX_YEARS = {"hypertension": (2017, 2021), "diabetes_complication": (2018,), "fall": range(2017, 2024)}


@pytest.fixture(scope="module")
def found(records) -> dict[str, pl.DataFrame]:
    """Per target the rows of its cohort that are in the truth: whether the outcome came, and censoring weights."""
    return {name: _found(records, name) for name in TARGETS}


def _found(records, name: str) -> pl.DataFrame:
    target, rows = TARGETS[name], cohort(records.store, TARGETS[name]).rows
    rows = rows.join(records.truth.filter(target=name), on=["subject_id", "index_time"], how="left")
    rows = rows.with_columns(year=(pl.col("index_time") + timedelta(hours=8)).dt.year())
    in_time = pl.col("time") < target.horizon_days
    rows = rows.with_columns(came=pl.col("observed") & in_time, known=pl.col("observed") | pl.col("died") | ~in_time)
    return pl.concat([_weighted(part) for _, part in rows.group_by("year")])


def _weighted(part: pl.DataFrame) -> pl.DataFrame:
    seen = Surv.from_arrays(part["known"].to_numpy(), part["time"].to_numpy() + 1.0)
    return part.with_columns(weight=pl.Series(CensoringDistributionEstimator().fit(seen).predict_ipcw(seen)))


def z_score(rows: pl.DataFrame) -> float:
    """How many standard errors the outcomes are from their expectation, censored rows weighing nothing."""
    weight, came, risk = (rows[name].cast(pl.Float64).to_numpy() for name in ("weight", "came", "risk"))
    return (weight * (came - risk)).sum() / np.sqrt((weight**2 * risk * (1 - risk)).sum())


@pytest.mark.parametrize("target", list(HORIZON_YEARS))
def test_what_the_phenotype_finds_comes_as_often_as_the_true_risk_says(found, target):
    rows = found[target].filter(pl.col("year").is_in(list(INDEX_YEARS[target]))).drop_nulls("risk")
    assert rows["came"].sum() > 200
    assert abs(z_score(rows)) < 3
    # Ten squared standard normals exceed 29.6 once in a thousand times.
    tenths = np.array_split(np.argsort(rows["risk"].to_numpy()), 10)
    assert sum(z_score(rows[tenth]) ** 2 for tenth in tenths) < 29.6


@pytest.mark.parametrize("target", list(HORIZON_YEARS))
def test_hardly_anyone_is_at_risk_by_the_records_and_not_in_truth(found, target):
    """But for those whose complication was there before the record could find it."""
    known = found[target].filter(pl.col("year") > 2017)
    assert known["risk"].is_null().mean() < (0.06 if target == "diabetes_complication" else 0.001)


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [("hypertension", 0.82, 0.89), ("diabetes_complication", 0.67, 0.75), ("fall", 0.77, 0.84)],
)
def test_the_true_risk_discriminates_as_docs_county_says(found, target, low, high):
    """The expected AUROC of the truth: each row an outcome with its risk, a non-event with the rest."""
    risk = found[target]["risk"].drop_nulls().to_numpy()
    outcome, both = np.repeat([1, 0], len(risk)), np.concatenate([risk, 1 - risk])
    assert low < roc_auc_score(outcome, np.tile(risk, 2), sample_weight=both) < high


def test_truth_has_a_row_for_each_resident_at_risk_at_each_new_year(records):
    assert records.truth.columns == ["subject_id", "index_time", "target", "risk", "log_hazard", "day"]
    midnights = {
        datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None) - timedelta(hours=8) for year in range(2017, 2025)
    }
    assert set(records.truth["index_time"]) == midnights
    assert not records.truth.select("subject_id", "index_time", "target").is_duplicated().any()
    day = 18262
    fallers = records.truth.filter((pl.col("target") == "fall") & (pl.col("day") == day))
    assert set(fallers["subject_id"]) == set(records.aged(2020, 65)["subject_id"])


def test_the_hazard_is_the_constant_one_that_gives_the_risk(records):
    for name, years in HORIZON_YEARS.items():
        some = records.truth.filter(target=name)
        assert np.allclose(1 - np.exp(-years * np.exp(some["log_hazard"].to_numpy())), some["risk"].to_numpy())


# The law


FATES = 25


@pytest.fixture(scope="module")
def redrawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per target, the true risks of two blocks' residents, and how often each had the outcome in redrawn fates."""
    period, dice = Period(2017, 5), Dice(11, 0)
    residents = settle(0, 4 * BLOCK, period, dice.of("residents"))
    rates = Rates.of(residents, period)
    rates = Rates(period, {**rates.base, "move": np.full_like(rates.base["move"], 1e-12)})
    begun = past(residents, period, rates, dice)
    hypertension, diabetes, complication = begun.state(period.start)
    here, adult = residents.born < period.start, residents.age(period.start) >= 18
    at_risk = {
        "hypertension": np.flatnonzero(here & adult & (hypertension < 2)),
        "diabetes_complication": np.flatnonzero(here & adult & (diabetes == 2) & (complication == 0)),
    }
    came = {target: np.zeros(len(residents)) for target in at_risk}
    for fate in range(FATES):
        course = deepcopy(begun)
        for year in range(5):
            live_through(year, course, residents, rates, Dice(1000 + fate, 0))
        came["hypertension"] += course.found["hypertension"] < period.new_year(4)
        came["diabetes_complication"] += course.complication < period.new_year(5)
    return {name: (recorded_risk(name, 0, who, begun, rates), came[name][who]) for name, who in at_risk.items()}


@pytest.mark.parametrize("target", ["hypertension", "diabetes_complication"])
def test_redrawn_fates_agree_with_the_true_risk_in_every_tenth(redrawn, target):
    risk, came = redrawn[target]
    for part in np.array_split(np.argsort(risk), 10):
        expected, variance = FATES * risk[part].sum(), FATES * (risk[part] * (1 - risk[part])).sum()
        assert abs(came[part].sum() - expected) < 4 * np.sqrt(variance)


@pytest.mark.parametrize("target", ["hypertension", "diabetes_complication"])
def test_the_true_risk_is_that_of_following_each_state_forward(target):
    """The reference follows the chances of every state year by year, outcomes and deaths taken out as they come."""
    period, dice = Period(2017, 6), Dice(4, 0)
    residents = settle(0, BLOCK, period, dice.of("residents"))
    rates = Rates.of(residents, period)
    begun = past(residents, period, rates, dice)
    diabetic = np.flatnonzero((begun.state(period.start)[1] == 2) & (begun.complication >= period.start))[:12]
    who = diabetic[begun.state(period.start)[0][diabetic] < (2 if target == "hypertension" else 3)]
    assert len(who) > 4
    expected = [forward(target, resident, begun, rates) for resident in who]
    assert recorded_risk(target, 0, who, begun, rates) == pytest.approx(expected, rel=1e-9)


def forward(target: str, resident: int, begun, rates: Rates) -> float:
    chance = {tuple(int(level[resident]) for level in begun.state(rates.period.start)): 1.0}
    risk = 0.0
    for year in range(HORIZON_YEARS[target]):
        yearly = hazards_of(year, resident, begun, rates)
        then: dict[tuple[int, ...], float] = {}
        for state, there in chance.items():
            found, worse = yearly["hypertension_detection"][state], yearly["complication"][state]
            outcome, death = (found if target == "hypertension" else worse), yearly["death"][state]
            dying = 1 - np.exp(-death)
            before_death = 1 - (1 - np.exp(-outcome)) / outcome if outcome else 0.0
            risk += there * ((1 - dying) * (1 - np.exp(-outcome)) + dying * before_death)
            spared = there * (1 - dying) * np.exp(-outcome)
            for steps in np.ndindex(2, 2, 2):
                share = spared
                for disease, level, step in zip(LEVELS, state, steps, strict=True):
                    share *= moving(target, disease, level, yearly, state, step)
                after = tuple(level + step for level, step in zip(state, steps, strict=True))
                if share:
                    then[after] = then.get(after, 0.0) + share
        chance = then
    return risk


def moving(target: str, disease: str, level: int, yearly: dict, state: tuple[int, ...], step: int) -> float:
    """The chance of going on by a level, or of staying, for who has not had the outcome."""
    process = disease if disease == "complication" or level == 0 else f"{disease}_detection"
    outcome = {"hypertension": "hypertension_detection", "diabetes_complication": "complication"}[target]
    last = level == (1 if disease == "complication" else 2)
    goes = 0.0 if last or process == outcome else 1 - np.exp(-yearly[process][state])
    return goes if step else 1 - goes


def hazards_of(year: int, resident: int, begun, rates: Rates) -> dict[str, np.ndarray]:
    names = ("hypertension", "hypertension_detection", "diabetes", "diabetes_detection", "death")
    yearly = {name: rates.by_state(name, year)[..., resident] for name in names}
    kinds = rates.complications(year, begun.began["diabetes"])
    return {**yearly, "complication": sum(by_state[..., resident] for _, by_state in kinds)}


def law(outcome: float, death: float, onset: float = 0.0, only_in_level: int | None = None) -> Law:
    """A year of constant hazards; the outcome only in one level of hypertension where that is said."""
    of_outcome, none = np.full((*STATES, 1), outcome), np.zeros((*STATES, 1))
    if only_in_level is not None:
        of_outcome[np.arange(STATES[0]) != only_in_level] = 0
    leaving = none.copy()
    leaving[0] = onset
    return Law(of_outcome, np.full((*STATES, 1), death), leaving, none, none)


def test_without_death_the_true_risk_is_that_of_a_constant_hazard():
    risk = cumulative_incidence([law(outcome=0.05, death=0)] * 4)
    assert risk == pytest.approx(1 - np.exp(-0.05 * 4), rel=1e-9)


def test_death_before_the_outcome_is_a_non_event():
    """Constant hazards a and m over T years: a / (a + m) (1 - exp(-(a + m) T)), but for when in a year one dies."""
    risk = cumulative_incidence([law(outcome=0.10, death=0.15)] * 5)
    assert risk == pytest.approx(0.10 / 0.25 * (1 - np.exp(-0.25 * 5)), rel=2e-3)


def test_a_disease_that_comes_within_the_horizon_is_found_from_the_next_year_on():
    """It comes in a year with probability 1 - exp(-0.5); then it is found with hazard 0.8 in each year that is left."""
    stays, comes = np.exp(-0.5), 1 - np.exp(-0.5)
    spared = stays**3 + sum(stays**year * comes * np.exp(-0.8 * (2 - year)) for year in range(3))
    risk = cumulative_incidence([law(outcome=0.8, death=0, onset=0.5, only_in_level=1)] * 3)
    assert risk[0, 0, 0, 0] == pytest.approx(1 - spared, rel=1e-9)
    assert risk[1, 0, 0, 0] == pytest.approx(1 - np.exp(-0.8 * 3), rel=1e-9)


# The law of falls


def recall(noted: float = -np.inf, asked: float = -1.0, unnoted: float = 0.0, yearly: float = 0.0) -> Recall:
    return Recall(*(np.array([each]) for each in (noted, asked, unnoted, yearly)))


def risk_of(known: Recall, yearly: float, noted: float, asked: float, death: float = 0.0) -> float:
    return fall_risk(np.array([yearly]), noted, np.array([asked]), np.array([death]), known)[0]


def test_where_nobody_asks_only_noted_falls_are_found():
    assert risk_of(recall(yearly=0.4), yearly=0.4, noted=0.2, asked=0) == pytest.approx(1 - np.exp(-0.2 * 0.4))


def test_where_everyone_is_asked_the_answer_covers_a_year_of_falls_before_and_after():
    """Of a fall that is never noted: any in the twelve months before the answer, whenever that is: 1 - exp(-0.4)."""
    assert risk_of(recall(yearly=0.4), yearly=0.4, noted=0, asked=1) == pytest.approx(1 - np.exp(-0.4), rel=1e-4)


def test_a_fall_noted_in_the_year_before_keeps_the_answer_at_yes_until_it_is_a_year_old():
    """Noted three months before: asked in the first nine months, with probability 0.75, one says yes."""
    assert risk_of(recall(noted=-0.25), yearly=0, noted=0.2, asked=1) == pytest.approx(0.75, abs=1 / 73)


def test_an_answer_of_no_half_a_year_ago_leaves_half_a_year_of_falls_unknown():
    """Nothing falls any more; the answer at u is yes if one fell since the last: 1 - exp(-0.4 min(0.5, 1 - u)).

    Over the year: 0.5 (1 - exp(-0.2)) and the mean of 1 - exp(-0.4 t) for t from 0.5 to 0, over the second half.
    """
    second_half = 0.5 - (1 - np.exp(-0.2)) / 0.4
    expected = 0.5 * (1 - np.exp(-0.2)) + second_half
    assert risk_of(recall(asked=-0.5, yearly=0.4), 0, 0, asked=1) == pytest.approx(expected, rel=2e-3)


def test_death_before_the_answer_keeps_a_fall_unknown():
    alive, mortal = (risk_of(recall(yearly=0.4), 0.4, 0.2, asked=0.7, death=death) for death in (0.0, 0.3))
    assert mortal < alive
