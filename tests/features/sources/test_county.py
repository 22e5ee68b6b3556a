"""The synthetic county: what is recorded follows the tables, and the risks beside it are the true ones."""

import hashlib
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import schema as meds
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from features.errors import WeibingError
from features.events import EventStore
from features.sources.county import BLOCK, County, simulate
from features.sources.county.course import live_through, past
from features.sources.county.hazards import Rates
from features.sources.county.period import DAYS_A_YEAR, Period, day_of
from features.sources.county.records import ILLNESSES
from features.sources.county.residents import settle
from features.sources.county.risk import HORIZON_YEARS, Law, cumulative_incidence, true_risks
from features.sources.county.tables import FOLDER, rows
from features.vocabulary import builtin

FIRST, LAST = 2017, 2024
CODES = {
    "death": "^MEDS_DEATH$",
    "hypertension": r"//I10$",
    "diabetes": r"//E11\.9$",
    "complication": r"//(E11\.[2345]|I21\.9|I50\.9|I61\.9|I63\.9)$",
    "antihypertensive": r"//C0[23789]",
}
OUTCOME = {"hypertension": "hypertension", "diabetes_complication": "complication", "fall": "fall"}
# Index years whose windows do not overlap, so that what is left unexplained of each is independent.
INDEX_YEARS = {"hypertension": (2017, 2021), "diabetes_complication": (2020,), "fall": range(2017, 2025)}


@dataclass(frozen=True)
class Records:
    """A county as it was written: events and true risks with their day, and a row per resident with the first days."""

    store: EventStore
    county: County
    events: pl.DataFrame
    truth: pl.DataFrame
    residents: pl.DataFrame

    def here(self, year: int, row: dict[str, str]) -> pl.DataFrame:
        """The residents of the row's age and sex who are observed on the first day of a year."""
        day, low, high = new_year(year), float(row["age_from"]), float(row["age_below"])
        age = (day - pl.col("born")) / DAYS_A_YEAR
        there = (pl.col("born") <= day) & (pl.col("end") > day)
        of_sex = pl.col("female") == float(row["female"]) if row.get("female") else pl.lit(value=True)
        return self.residents.filter(there & of_sex & age.is_between(low, high, closed="left"))


def new_year(year: int) -> int:
    return day_of(date(year, 1, 1))


def local_day(time: str) -> pl.Expr:
    return (pl.col(time) + timedelta(hours=8)).dt.date().cast(pl.Int64)


def read(path: Path, county: County) -> Records:
    store = EventStore.open(path)
    events = pl.concat([store.read(shard) for shard in store.shards]).with_columns(day=local_day("time"))
    truth = pl.read_parquet(path / "truth.parquet").with_columns(day=local_day("index_time"))
    end = events.filter(pl.col("code").is_in(["MEDS_DEATH", "OBSERVATION_END"]))
    residents = events.filter(pl.col("code") == "MEDS_BIRTH").select("subject_id", born="day")
    residents = residents.join(end.group_by("subject_id").agg(end=pl.col("day").min()), on="subject_id")
    female = events.filter(pl.col("code") == "female").select("subject_id", female="numeric_value")
    residents = residents.join(female, on="subject_id")
    for name, pattern in CODES.items():
        first = events.filter(pl.col("code").str.contains(pattern)).group_by("subject_id").agg(pl.col("day").min())
        residents = residents.join(first.rename({"day": name}), on="subject_id", how="left")
    return Records(store, county, events, truth, residents)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Records:
    path = tmp_path_factory.mktemp("county") / "store"
    return read(path, simulate(path, residents=12_000, years=8, seed=0))


def fingerprints(path: Path) -> dict[str, str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# Same in, same out


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        simulate(tmp_path / name, residents=700, years=3, seed=seed)
    one, again, other = (fingerprints(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert {"data/0000.parquet", "truth.parquet", "metadata/codes.parquet"} <= set(one)
    assert one["data/0000.parquet"] != other["data/0000.parquet"]
    assert one["truth.parquet"] != other["truth.parquet"]


def test_the_first_residents_do_not_depend_on_how_many_follow(tmp_path):
    few, many = (
        read(tmp_path / str(count), simulate(tmp_path / str(count), residents=count, years=2))
        for count in (300, BLOCK + 1)
    )
    assert many.residents["subject_id"].max() == BLOCK + 1
    for part in ("events", "truth"):
        assert getattr(few, part).equals(getattr(many, part).filter(pl.col("subject_id") <= 300))


def test_a_county_made_twice_in_the_same_place_stays_as_it_is(tmp_path):
    first = simulate(tmp_path, residents=200, years=2)
    before = fingerprints(tmp_path)
    assert simulate(tmp_path, residents=200, years=2) == first
    assert fingerprints(tmp_path) == before


def test_a_county_interrupted_and_made_again_is_the_county_undisturbed(tmp_path):
    def interrupt(sentence: str) -> None:
        raise KeyboardInterrupt(sentence)

    with pytest.raises(KeyboardInterrupt, match="200 of 200 residents"):
        simulate(tmp_path / "cut", residents=200, years=2, progress=interrupt)
    assert not EventStore.open(tmp_path / "cut").shards
    assert not list((tmp_path / "cut").glob("truth.*"))
    for name in ("cut", "whole"):
        simulate(tmp_path / name, residents=200, years=2)
    assert fingerprints(tmp_path / "cut") == fingerprints(tmp_path / "whole")


# What it refuses


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"residents": 0}, "at least one resident"),
        ({"years": 0}, "at least one resident, one year"),
        ({"seed": -1}, "not negative"),
        ({"end": date(2024, 7, 1)}, "first of January, not on 2024-07-01. Use 2024-01-01"),
        ({"years": 50}, "at most 33 years"),
    ],
)
def test_an_impossible_county_is_refused_before_anything_is_written(tmp_path, wrong, sentence):
    with pytest.raises(WeibingError, match=sentence):
        simulate(tmp_path / "store", **wrong)
    assert not (tmp_path / "store").exists()


def test_a_store_with_other_records_is_left_alone(tmp_path):
    store = EventStore.create(tmp_path, timezone="Asia/Shanghai")
    store.append([pl.DataFrame({"subject_id": [1], "time": [datetime(2020, 1, 1)], "code": ["fall"]})])
    before = fingerprints(tmp_path)
    with pytest.raises(WeibingError, match="holds other records"):
        simulate(tmp_path, residents=10, years=1)
    assert fingerprints(tmp_path) == before


def test_another_county_is_not_mixed_in(tmp_path):
    simulate(tmp_path, residents=100, years=1, seed=1)
    with pytest.raises(WeibingError, match="holds other records"):
        simulate(tmp_path, residents=100, years=1, seed=2)


# What is recorded


def test_the_store_conforms_to_meds(records):
    for shard in records.store.shards:
        # Polars writes large strings, which MEDS takes for its strings.
        meds.DataSchema.validate(meds.DataSchema.align(pq.read_table(shard)))


def test_the_county_says_what_it_is(records):
    assert records.store.description["synthetic"] is True
    assert records.store.timezone == "Asia/Shanghai"
    assert records.county == County(12_000, len(records.events), datetime(2016, 12, 31, 16), datetime(2024, 12, 31, 16))
    assert records.residents.height == 12_000


def test_nothing_is_recorded_before_birth_or_the_record_nor_after_death_or_moving(records):
    life = records.events.drop_nulls("time").join(records.residents, on="subject_id")
    outside = life.filter((pl.col("day") < pl.col("born")) | (pl.col("day") > pl.col("end")))
    assert outside.is_empty()
    dated = life.filter(pl.col("code") != "MEDS_BIRTH")
    assert dated["time"].min() >= datetime(2017, 1, 1)
    assert dated["time"].max() == records.county.end


def test_everyone_is_born_once_and_ends_once(records):
    ends = records.events.filter(pl.col("code").is_in(["MEDS_BIRTH", "MEDS_DEATH", "OBSERVATION_END"]))
    kinds = ends.group_by("subject_id").agg(pl.col("code").sort())["code"].to_list()
    assert {tuple(codes) for codes in kinds} == {("MEDS_BIRTH", "MEDS_DEATH"), ("MEDS_BIRTH", "OBSERVATION_END")}


def test_some_are_born_some_die_and_some_move_during_the_record(records):
    end, start = new_year(LAST + 1), new_year(FIRST)
    moved = (pl.col("end") < end) & pl.col("death").is_null()
    shares = records.residents.select(
        born=(pl.col("born") >= start).mean(), died=pl.col("death").is_not_null().mean(), moved=moved.mean()
    ).row(0, named=True)
    assert 0.04 < shares["born"] < 0.07
    assert 0.06 < shares["died"] < 0.11
    assert 0.03 < shares["moved"] < 0.07


def test_who_someone_is_has_no_time(records):
    statics = records.events.filter(pl.col("time").is_null())
    assert set(statics["code"]) == {"female", "rural", "education"}
    assert set(statics.filter(pl.col("code") == "education")["numeric_value"]) == {1, 2, 3, 4, 5}


def test_each_disease_is_diagnosed_once_and_treated_only_afterwards(records):
    diagnoses = records.events.filter(pl.col("code").is_in(["ICD10//I10", "ICD10//E11.9"]))
    assert diagnoses.select("subject_id", "code").is_duplicated().sum() == 0
    treated = records.residents.drop_nulls("antihypertensive")
    assert (treated["antihypertensive"] >= treated["hypertension"]).all()
    assert treated.height > 1000


def test_what_began_before_the_record_is_registered_in_its_first_year(records):
    """At risk in truth at the start means no disease; the others' diagnoses all come within a year."""
    at_risk = records.truth.filter((pl.col("target") == "hypertension") & (pl.col("day") == new_year(FIRST)))
    adults = records.here(FIRST, {"age_from": "18", "age_below": "200"})
    prevalent = adults.join(at_risk, on="subject_id", how="anti")
    assert 0.10 < prevalent.height / adults.height < 0.30
    seen_to = prevalent.filter(pl.col("end") > new_year(FIRST + 1))
    assert (seen_to["hypertension"] < new_year(FIRST + 1)).all()


def test_pressure_before_the_diagnosis_is_mostly_normal_and_at_the_diagnosis_mostly_high(records):
    pressure = records.events.filter((pl.col("code") == "sbp") & pl.col("numeric_value").is_between(70, 250))
    pressure = pressure.join(records.residents, on="subject_id")
    pressure = pressure.filter(pl.col("hypertension") >= new_year(FIRST + 1))
    high = pl.col("numeric_value") >= 140
    before, then = pl.col("day") < pl.col("hypertension"), pl.col("day") == pl.col("hypertension")
    assert pressure.filter(before).select(high.mean()).item() < 0.25
    assert pressure.filter(then).select(high.mean()).item() > 0.75


def test_half_of_the_readings_under_treatment_are_controlled_and_few_without(records):
    readings = records.events.filter(pl.col("code") == "sbp").join(records.residents, on="subject_id")
    readings = readings.filter(pl.col("day") > pl.col("hypertension"))
    controlled = (pl.col("numeric_value") < 140).mean()
    treated = pl.col("antihypertensive").is_not_null()
    assert 0.4 < readings.filter(treated).select(controlled).item() < 0.65
    assert readings.filter(~treated).select(controlled).item() < 0.25


def test_events_per_resident_are_as_many_as_in_a_county(records):
    assert 60 < records.events.height / records.residents.height < 130


def test_every_code_is_known_but_for_some_common_illnesses(records):
    unknown = {code for code in records.events["code"].unique() if not builtin().meanings(code)}
    assert unknown == set(ILLNESSES)


def test_a_few_values_are_impossible_and_a_few_in_another_unit(records):
    """Each unit of `faults.csv` occurs, and all faults together are rare; infants are beyond the plausible ranges."""
    grown = records.residents.filter(pl.col("born") < new_year(FIRST) - 7 * DAYS_A_YEAR).select("subject_id")
    values = records.events.drop_nulls("numeric_value").join(grown, on="subject_id")
    limits = {name: (concept.low, concept.high) for name, concept in builtin().concepts.items()}
    impossible = 0
    for (code,), some in values.filter(pl.col("unit").is_null()).group_by("code"):
        impossible += some.filter(~pl.col("numeric_value").is_between(*limits[code])).height
    units = set(values.drop_nulls("unit")["unit"])
    assert units == {row["unit"] for row in rows("faults") if row["unit"]}
    assert 0 < impossible / values.height < 0.001
    assert 0 < values["unit"].is_not_null().mean() < 0.005


def test_tens_and_even_numbers_are_preferred_in_blood_pressure(records):
    pressure = records.events.filter((pl.col("code") == "sbp") & pl.col("numeric_value").is_between(70, 250))
    last_digit = pressure["numeric_value"].cast(pl.Int64) % 10
    assert (last_digit % 2 == 0).all()
    assert 0.35 < (last_digit == 0).mean() < 0.55


def test_every_figure_has_a_source_and_a_mark_of_trust():
    for table in sorted(FOLDER.glob("*.csv")):
        for row in rows(table.stem):
            assert row["source"], (table.name, row)
            assert row["trust"] in {"VP", "VI", "VS", "M", "M-"}, (table.name, row)


# Rates beside the published ones


def incidence(records: Records, row: dict[str, str], disease: str, among: str | None = None) -> float:
    """New cases per 1,000 years in the years after that of registration."""
    cases = years = 0.0
    for year in range(FIRST + 1, LAST + 1):
        day, end = new_year(year), new_year(year + 1)
        at_risk = records.here(year, row).filter(pl.col(disease).is_null() | (pl.col(disease) >= day))
        if among:
            at_risk = at_risk.filter(pl.col(among) < day)
        until = pl.min_horizontal(disease, "end", pl.lit(end))
        cases += at_risk.filter(pl.col(disease) < end).height
        years += at_risk.select((until - day).sum()).item() / DAYS_A_YEAR
    return 1000 * cases / years


def prevalence(records: Records, row: dict[str, str], disease: str) -> float:
    """Percent with a diagnosis a year after the record begins."""
    day = new_year(FIRST + 1)
    return 100 * records.here(FIRST + 1, row).select((pl.col(disease) < day).fill_null(value=False).mean()).item()


def fall_share(records: Records, row: dict[str, str]) -> float:
    """Percent with a recorded fall in a calendar year, among those observed to its end."""
    fell = people = 0
    for year in range(FIRST, LAST + 1):
        day, end = new_year(year), new_year(year + 1)
        there = records.here(year, row).filter(pl.col("end") >= end)
        fallers = falls(records).filter(pl.col("day").is_between(day, end, closed="left"))
        fell += there.join(fallers, on="subject_id", how="semi").height
        people += there.height
    return 100 * fell / people


def death_rate(records: Records, row: dict[str, str]) -> float:
    """Deaths per 1,000 years."""
    deaths = years = 0.0
    for year in range(FIRST, LAST + 1):
        day, end = new_year(year), new_year(year + 1)
        there = records.here(year, row)
        deaths += there.filter(pl.col("death") < end).height
        years += there.select((pl.min_horizontal("end", pl.lit(end)) - day).sum()).item() / DAYS_A_YEAR
    return 1000 * deaths / years


def share_of_residents(records: Records, row: dict[str, str]) -> float:
    everyone = records.here(FIRST + 1, {"age_from": "0", "age_below": "200"})
    return 100 * records.here(FIRST + 1, row).height / everyone.height


def falls(records: Records) -> pl.DataFrame:
    return records.events.filter(pl.col("code").is_in(["fall", "ICD10//W19"])).select("subject_id", "day")


MEASURES = {
    "hypertension_incidence": lambda records, row: incidence(records, row, "hypertension"),
    "hypertension_prevalence": lambda records, row: prevalence(records, row, "hypertension"),
    "diabetes_prevalence": lambda records, row: prevalence(records, row, "diabetes"),
    "complication_incidence": lambda records, row: incidence(records, row, "complication", among="diabetes"),
    "fall_share": fall_share,
    "death_rate": death_rate,
    "share_of_residents": share_of_residents,
}


@pytest.mark.parametrize(
    "row", rows("published"), ids=lambda row: f"{row['measure']}-{row['age_from']}-{row['female'] or 'all'}"
)
def test_a_rate_lies_in_the_published_range(records, row, record_property):
    found = MEASURES[row["measure"]](records, row)
    record_property("found", round(found, 1))
    assert float(row["low"]) <= found <= float(row["high"])


# The true risk


def soft_auroc(score: np.ndarray, risk: np.ndarray) -> float:
    """The expected AUROC of a score where outcomes come with these risks."""
    outcome = np.repeat([1, 0], len(risk))
    return roc_auc_score(outcome, np.tile(score, 2), sample_weight=np.concatenate([risk, 1 - risk]))


def followed(records: Records, target: str, years) -> pl.DataFrame:
    """The rows of truth at the first days of some years: whether the outcome came, and censoring weights for moves."""
    parts = [_followed_from(records, target, year) for year in years]
    return pl.concat(parts)


def _followed_from(records: Records, target: str, year: int) -> pl.DataFrame:
    day, horizon = new_year(year), new_year(year + HORIZON_YEARS[target])
    at_risk = records.truth.filter((pl.col("target") == target) & (pl.col("day") == day))
    at_risk = at_risk.join(records.residents, on="subject_id")
    if target == "fall":
        first = falls(records).filter(pl.col("day") >= day).group_by("subject_id").agg(fall=pl.col("day").min())
        at_risk = at_risk.join(first, on="subject_id", how="left")
    at_risk = at_risk.with_columns(came=(pl.col(OUTCOME[target]) < horizon).fill_null(value=False))
    moved = ~pl.col("came") & pl.col("death").is_null() & (pl.col("end") < horizon)
    until = pl.when("came").then(OUTCOME[target]).otherwise(pl.min_horizontal("end", pl.lit(horizon)))
    at_risk = at_risk.with_columns(moved=moved, days=(until - day + 1).cast(pl.Float64))
    young = (pl.col("day") - pl.col("born")) / DAYS_A_YEAR < 35
    return pl.concat([_weighted(part) for part in (at_risk.filter(young), at_risk.filter(~young)) if len(part)])


def _weighted(part: pl.DataFrame) -> pl.DataFrame:
    seen = Surv.from_arrays(~part["moved"].to_numpy(), part["days"].to_numpy())
    weight = CensoringDistributionEstimator().fit(seen).predict_ipcw(seen)
    return part.with_columns(weight=pl.Series(weight)).select("subject_id", "day", "risk", "came", "weight")


def z_score(weight: np.ndarray, came: np.ndarray, risk: np.ndarray) -> float:
    """How many standard errors the outcomes are from their expectation, censored rows weighing nothing."""
    return (weight * (came - risk)).sum() / np.sqrt((weight**2 * risk * (1 - risk)).sum())


@pytest.mark.parametrize("target", list(HORIZON_YEARS))
def test_what_is_recorded_comes_as_often_as_the_true_risk_says(records, target):
    found = followed(records, target, INDEX_YEARS[target]).sort("risk")
    weight, came, risk = (found[name].cast(pl.Float64).to_numpy() for name in ("weight", "came", "risk"))
    assert abs(z_score(weight, came, risk)) < 3
    # Ten squared standard normals exceed 29.6 once in a thousand times.
    deciles = np.array_split(np.arange(len(risk)), 10)
    assert sum(z_score(weight[part], came[part], risk[part]) ** 2 for part in deciles) < 29.6


@pytest.fixture(scope="module")
def redrawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per target, the true risks of a block's residents, and how often each had the outcome in redrawn fates."""
    period, rng = Period(FIRST, 5), np.random.default_rng(11)
    residents = settle(0, 2 * BLOCK, period, rng)
    rates, begun = Rates.of(residents, period), past(residents, period, rng)
    rates = Rates(period, {**rates.base, "move": np.full_like(rates.base["move"], 1e-12)})
    risks = true_risks(0, begun, residents, rates)
    came = {target: np.zeros(len(residents)) for target in HORIZON_YEARS}
    for _ in range(FATES):
        course = deepcopy(begun)
        for year in range(5):
            live_through(year, course, residents, rates, rng)
        fallen = np.concatenate([who[day < period.new_year(1)] for who, day in course.falls])
        came["hypertension"] += course.hypertension < period.new_year(4)
        came["diabetes_complication"] += course.complication < period.new_year(5)
        came["fall"] += np.bincount(fallen, minlength=len(residents)) > 0
    found = {}
    for (target,), part in risks.group_by("target"):
        found[target] = part["risk"].to_numpy(), came[target][part["subject_id"].to_numpy()]
    return found


FATES = 30


@pytest.mark.parametrize("target", list(HORIZON_YEARS))
def test_redrawn_fates_agree_with_the_true_risk_in_every_tenth(redrawn, target):
    risk, came = redrawn[target]
    for part in np.array_split(np.argsort(risk), 10):
        expected, variance = FATES * risk[part].sum(), FATES * (risk[part] * (1 - risk[part])).sum()
        assert abs(came[part].sum() - expected) < 4 * np.sqrt(variance)


def law(outcome: float, death: float, diabetes: float = 0.0, complication: float = 0.0) -> Law:
    by_state = [np.full((2, 2, 1), value) for value in (outcome, death)]
    return Law(*by_state, np.full(1, diabetes), np.full((2, 2, 1), complication))


def test_without_death_the_true_risk_is_that_of_a_constant_hazard():
    risk = cumulative_incidence([law(outcome=0.05, death=0)] * 4)
    assert risk == pytest.approx(1 - np.exp(-0.05 * 4), rel=1e-12)


def test_death_before_the_outcome_is_a_non_event():
    """Constant hazards a and m over T years: a / (a + m) (1 - exp(-(a + m) T)), but for when in a quarter one dies."""
    risk = cumulative_incidence([law(outcome=0.10, death=0.15)] * 5)
    assert risk == pytest.approx(0.10 / 0.25 * (1 - np.exp(-0.25 * 5)), rel=1e-3)


def test_a_disease_that_comes_within_the_horizon_counts_from_the_next_quarter():
    """Outcomes come to people with diabetes alone; diabetes comes in any quarter with probability 1 - exp(-0.5 / 4)."""
    only_with_diabetes = law(outcome=0.8, death=0, diabetes=0.5)
    only_with_diabetes.outcome[0] = 1e-12
    stays, comes = np.exp(-0.5 / 4), 1 - np.exp(-0.5 / 4)
    spared = stays**4 + sum(stays**quarter * comes * np.exp(-0.8 / 4 * (3 - quarter)) for quarter in range(4))
    risk = cumulative_incidence([only_with_diabetes])
    assert risk[0, 0, 0] == pytest.approx(1 - spared, rel=1e-9)
    assert risk[1, 0, 0] == pytest.approx(1 - np.exp(-0.8), rel=1e-9)


def test_truth_has_a_row_for_each_resident_at_risk_at_each_new_year(records):
    assert records.truth.columns == ["subject_id", "index_time", "target", "risk", "log_hazard", "day"]
    midnights = {
        datetime(year, 1, 1, tzinfo=UTC).replace(tzinfo=None) - timedelta(hours=8) for year in range(FIRST, LAST + 1)
    }
    assert set(records.truth["index_time"]) == midnights
    assert not records.truth.select("subject_id", "index_time", "target").is_duplicated().any()
    old = records.here(2020, {"age_from": "65", "age_below": "200"})
    fallers = records.truth.filter((pl.col("target") == "fall") & (pl.col("day") == new_year(2020)))
    assert set(fallers["subject_id"]) == set(old["subject_id"])


@pytest.mark.parametrize(
    ("target", "low", "high"),
    [("hypertension", 0.75, 0.85), ("diabetes_complication", 0.70, 0.78), ("fall", 0.70, 0.75)],
)
def test_the_true_risk_discriminates_as_well_as_good_models_do(records, target, low, high):
    risk = records.truth.filter(pl.col("target") == target)["risk"].to_numpy()
    assert low < soft_auroc(risk, risk) < high


def test_what_is_recorded_is_enough_to_recover_most_of_the_true_risk(records):
    """A logistic regression on age, sex and mean pressure, learnt from outcomes, comes near the true risk."""
    rows_at_risk = followed(records, "hypertension", (2021,)).filter(pl.col("weight") > 0)
    rows_at_risk = rows_at_risk.join(records.residents.select("subject_id", "born", "female"), on="subject_id")
    for code in ("sbp", "dbp", "bmi"):
        known = records.events.filter((pl.col("code") == code) & (pl.col("day") < new_year(2021)))
        mean = known.group_by("subject_id").agg(pl.col("numeric_value").median().alias(code))
        rows_at_risk = rows_at_risk.join(mean, on="subject_id")
    asked = rows_at_risk.select(pl.col("born") / 4000, "female", pl.col("sbp", "dbp", "bmi") / 10).to_numpy()
    risk = rows_at_risk["risk"].to_numpy()
    learnt = LogisticRegression(max_iter=1000).fit(asked, rows_at_risk["came"].to_numpy()).predict_proba(asked)[:, 1]
    assert soft_auroc(learnt, risk) > soft_auroc(risk, risk) - 0.03
