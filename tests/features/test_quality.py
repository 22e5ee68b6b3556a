"""What is wrong with the records: each fault is planted and found, and not found where it is not."""

import json
import string
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from features.cohort import IndexTimes, Target
from features.errors import WeibingError
from features.events import EventStore
from features.quality import Level, check, survey
from features.quality.trajectories import LEVELS
from features.quality.words import LANGUAGES, SENTENCES
from features.vocabulary import builtin
from tests.features.quality_records import TOWNSHIPS, frame, kinds, measured, people, quality_of, row, the
from tests.tables import events_from

STROKE = Target("stroke", ("stroke",), "5y", IndexTimes(every="1y"), increasing=("age", "sbp"), label_zh="脑卒中")


def yearly(code: str, residents: int, years: range, value: float = 1.0) -> pl.DataFrame:
    """Make a value for each resident 1, 2, … on a day of each year."""
    days = [datetime(year, 3, 1) + timedelta(days=who % 300) for year in years for who in range(residents)]
    who = [who for _ in years for who in range(1, residents + 1)]
    return frame({"subject_id": who, "time": days, "code": code, "numeric_value": value})


# completeness


def test_the_share_of_a_year_counts_residents_observed_in_it_from_the_first_record_to_the_end_of_observation(tmp_path):
    history = """
        subject_id | time       | code            | value
        1          | 1960-01-01 | MEDS_BIRTH      |
        1          | 2020-02-01 | sbp             | 120
        1          | 2020-08-01 | sbp             | 130
        1          | 2022-02-01 | sbp             | 120
        2          | 2021-05-01 | dbp             | 80
        2          | 2021-06-01 | sbp             | 999
        3          | 2020-05-01 | sbp             | 118
        3          | 2021-05-01 | OBSERVATION_END |
        4          | 2020-01-01 | sbp             | 118
        4          | 2020-12-01 | MEDS_DEATH      |
    """
    quality = quality_of(tmp_path, events_from(history))
    shares = quality.tables["completeness_by_year"].filter(pl.col("concept") == "sbp")
    assert shares.select("year", "residents", "observed").rows() == [
        (2020, 3, 3),  # 1, 3 and 4; of 2 there is no record yet
        (2021, 0, 3),  # 1 has none, 2 an impossible one, 3 is observed until May; 4 is dead
        (2022, 1, 2),
    ]


def test_what_always_holds_is_complete_without_a_year(tmp_path):
    quality = quality_of(tmp_path, people(4), measured("education", np.ones(2)), measured("sbp", np.full(4, 120)))
    assert row(quality, "completeness", concept="female")["share"] == 1
    assert row(quality, "completeness", concept="education")["residents"] == 2
    assert "female" not in quality.tables["completeness_by_year"]["concept"].to_list()


def test_a_township_that_lacks_what_the_county_has_is_found(tmp_path):
    everyone = yearly("sbp", 600, range(2020, 2023), 120)
    glucose = yearly("glucose_fasting", 600, range(2020, 2023), 5).filter(pl.col("subject_id") % 3 != 0)
    quality = quality_of(tmp_path, people(600, townships=TOWNSHIPS), everyone, glucose)
    found = the(quality, "lacking")
    assert (found.figures["township"], found.figures["concepts"]) == ("Qingxi", ["glucose_fasting"])
    assert row(quality, "completeness_by_township", concept="glucose_fasting", township="Qingxi")["share"] == 0
    assert row(quality, "completeness_by_year_and_township", concept="sbp", township="Qingxi", year=2021)["share"] == 1


def test_a_township_that_records_as_the_others_do_lacks_nothing(tmp_path):
    quality = quality_of(tmp_path, people(600, townships=TOWNSHIPS), yearly("sbp", 600, range(2020, 2023), 120))
    assert not kinds(quality) & {"lacking", "fallen"}


def test_a_concept_that_falls_away_in_a_year_is_found(tmp_path):
    everyone = yearly("sbp", 300, range(2018, 2024), 120)
    glucose = yearly("glucose_fasting", 300, range(2018, 2023), 5)
    end = frame({"subject_id": [1], "time": datetime(2024, 1, 1), "code": "OBSERVATION_END"})
    found = the(quality_of(tmp_path, people(300), everyone, glucose, end), "fallen")
    assert found.figures == {"concept": "glucose_fasting", "year": 2023, "now": 0, "before": 1, "residents": 0}


def test_a_year_that_is_not_over_is_no_fall(tmp_path):
    some = yearly("glucose_fasting", 300, range(2018, 2023), 5)
    january = measured("glucose_fasting", np.full(20, 5.0), start=datetime(2023, 1, 2))
    assert "fallen" not in kinds(quality_of(tmp_path, people(300), some, january))


def test_a_concept_that_a_target_asks_for_and_nobody_has_is_found(tmp_path):
    events = (people(5), yearly("dbp", 5, range(2020, 2022), 80))
    found = the(quality_of(tmp_path, *events, targets=(STROKE,)), "absent")
    assert found.figures == {"concept": "sbp", "target": "stroke"}


# last digits


def digits_of(tmp_path, values: np.ndarray, townships: tuple[str, ...] = ()):
    return quality_of(tmp_path, people(len(values), townships=townships), measured("sbp", values))


def pressures(residents: int, step: int) -> np.ndarray:
    return np.round(np.random.default_rng(0).normal(130, 18, residents) / step) * step


@pytest.mark.parametrize("step", [1, 2])
def test_readings_of_a_careful_reader_are_no_fault(step, tmp_path):
    quality = digits_of(tmp_path, pressures(3000, step))
    assert not kinds(quality) & {"digits", "digits_in_township", "same_reading"}
    assert ("even_digits" in kinds(quality)) == (step == 2)


def test_readings_that_end_in_0_too_often_are_found(tmp_path):
    values = pressures(2000, 1)
    values[:800] = np.round(values[:800], -1)
    quality = digits_of(tmp_path, values)
    # two in five are rounded, and of the others one in ten ends in 0
    assert the(quality, "digits").share == pytest.approx(0.4 + 0.6 * 0.1, abs=0.02)
    shares = row(quality, "last_digits")
    assert sum(shares[f"ends_in_{digit}"] for digit in range(10)) == pytest.approx(1)
    assert shares["readings"] == 2000


def test_a_township_that_rounds_is_found_where_the_county_does_not(tmp_path):
    values = pressures(1500, 1)
    in_baita = np.arange(1, 1501) % 3 == 1
    values[in_baita] = np.where(np.arange(in_baita.sum()) % 2, np.round(values[in_baita], -1), values[in_baita])
    found = the(digits_of(tmp_path, values, TOWNSHIPS), "digits_in_township")
    assert (found.figures["township"], found.share) == ("Baita", pytest.approx(0.55, abs=0.05))


def test_the_same_reading_again_and_again_is_found(tmp_path):
    values = pressures(1000, 2)
    values[:300] = 128
    assert the(digits_of(tmp_path, values), "same_reading").figures["commonest"] == 128


def test_readings_with_decimals_have_no_last_digit(tmp_path):
    quality = digits_of(tmp_path, pressures(200, 1) + 0.5)
    assert not len(quality.tables["last_digits"])


# trajectories

CONTRADICTIONS = {
    "after_death": """
        time       | code       | value
        2020-01-01 | MEDS_DEATH |
        2020-01-01 | sbp        | 120
        2020-03-01 | sbp        | 120
    """,
    "before_birth": """
        time       | code       | value
        1970-01-01 | MEDS_BIRTH |
        1969-06-01 | sbp        | 120
    """,
    "two_births": """
        time       | code       | value
        1970-01-01 | MEDS_BIRTH |
        1971-01-01 | MEDS_BIRTH |
        2020-01-01 | sbp        | 120
    """,
    "two_deaths": """
        time       | code       | value
        2019-01-01 | sbp        | 120
        2020-01-01 | MEDS_DEATH |
        2020-05-01 | MEDS_DEATH |
    """,
    "two_sexes": """
        time       | code   | value
                   | female | 0
                   | female | 1
        2020-01-01 | sbp    | 120
    """,
    "too_old": """
        time       | code       | value
        1870-01-01 | MEDS_BIRTH |
        2020-01-01 | sbp        | 120
    """,
    "pregnant_male": """
        time       | code      | value
                   | female    | 0
        2020-01-01 | pregnancy |
    """,
    "height_change": """
        time       | code       | value
        1970-01-01 | MEDS_BIRTH |
        2020-01-01 | height     | 170
        2021-01-01 | height     | 163.5
    """,
    "weight_jump": """
        time       | code       | value
        1970-01-01 | MEDS_BIRTH |
        2020-01-01 | weight     | 60
        2020-06-01 | weight     | 90
    """,
    "no_birth": """
        time       | code   | value
                   | female | 1
        2020-01-01 | sbp    | 120
    """,
    "no_sex": """
        time       | code       | value
        1970-01-01 | MEDS_BIRTH |
        2020-01-01 | sbp        | 120
    """,
}
STATEMENTS = {"no_birth", "no_sex"}


@pytest.fixture(scope="module")
def contradicted(tmp_path_factory):
    """A store in which each contradiction is that of one resident, the first of the list resident 1."""
    events = [events_from(CONTRADICTIONS[kind], subject_id=number) for number, kind in enumerate(LEVELS, 1)]
    return quality_of(tmp_path_factory.mktemp("contradicted"), *events)


@pytest.mark.parametrize("kind", set(LEVELS) - STATEMENTS)
def test_a_contradiction_is_found_in_the_resident_who_has_it_and_in_no_other(kind, contradicted):
    found = row(contradicted, "trajectories", kind=kind)
    assert (found["residents"], found["events"], found["examples"]) == (1, 1, [list(LEVELS).index(kind) + 1])
    assert the(contradicted, kind).level is LEVELS[kind]


@pytest.mark.parametrize(("kind", "code"), [("no_birth", "MEDS_BIRTH"), ("no_sex", "female")])
def test_residents_without_a_birth_or_a_sex_are_counted(kind, code, contradicted):
    told = [number for number, history in enumerate(map(CONTRADICTIONS.get, LEVELS), 1) if code in history]
    expected = sorted(set(range(1, len(LEVELS) + 1)) - set(told))
    assert sorted(row(contradicted, "trajectories", kind=kind)["examples"]) == expected


def test_a_life_without_contradictions_has_none(tmp_path):
    history = """
        time             | code            | value
        1940-03-01       | MEDS_BIRTH      |
                         | female          | 1
        1945-03-01       | height          | 105
        1990-03-01       | height          | 162
        2020-03-01       | height          | 158
        2020-03-01       | weight          | 60
        2021-09-01       | weight          | 90
        2022-05-01       | MEDS_DEATH      |
        2022-05-01T18:00 | emergency_visit |
        2022-12-31       | OBSERVATION_END |
    """
    assert not kinds(quality_of(tmp_path, events_from(history))) & set(LEVELS)


def test_contradictions_are_counted_by_township(tmp_path):
    late = [CONTRADICTIONS["after_death"]] * 3
    events = [events_from(history, subject_id=1 + 3 * n) for n, history in enumerate(late)]
    quality = quality_of(tmp_path, people(9, townships=TOWNSHIPS), *events)
    assert row(quality, "trajectories_by_township", kind="after_death")["township"] == "Baita"
    assert row(quality, "trajectories_by_township", kind="after_death")["residents"] == 3


# outcomes


def strokes(residents: int, years: range) -> pl.DataFrame:
    return yearly("stroke", residents, years).with_columns(pl.lit(None).cast(pl.Float32).alias("numeric_value"))


def test_the_outcomes_of_a_target_are_counted_by_resident_and_year(tmp_path):
    events = (people(400), yearly("sbp", 400, range(2020, 2023), 120), strokes(120, range(2020, 2022)))
    quality = quality_of(tmp_path, *events, targets=(STROKE,))
    found = row(quality, "labels", label="stroke", of_target=True)
    assert (found["residents"], found["share"], found["events"]) == (120, 0.3, 240)
    assert (found["first_year"], found["last_year"]) == (2020, 2021)
    assert row(quality, "labels_by_year", label="stroke", of_target=True, year=2021)["residents"] == 120
    assert not kinds(quality) & {"no_outcome", "few_outcomes"}


def test_every_phenotype_is_counted_though_nobody_has_it(tmp_path):
    quality = quality_of(tmp_path, people(3), yearly("sbp", 3, range(2020, 2022), 120))
    phenotypes = {name for name, concept in builtin().concepts.items() if concept.kind == "phenotype"}
    assert set(quality.tables["labels"]["label"]) == phenotypes
    assert quality.tables["labels"]["residents"].sum() == 0


@pytest.mark.parametrize(("residents", "kind"), [(0, "no_outcome"), (40, "few_outcomes")])
def test_a_target_that_nobody_or_hardly_anybody_has_is_found(residents, kind, tmp_path):
    events = (people(400), yearly("sbp", 400, range(2020, 2023), 120), strokes(residents, range(2021, 2023)))
    quality = quality_of(tmp_path, *[part for part in events if len(part)], targets=(STROKE,))
    assert the(quality, kind).count == residents


def test_an_outcome_that_is_no_longer_recorded_is_found(tmp_path):
    events = (people(400), yearly("sbp", 400, range(2018, 2023), 120), strokes(120, range(2018, 2021)))
    end = frame({"subject_id": [1], "time": datetime(2023, 1, 1), "code": "OBSERVATION_END"})
    found = the(quality_of(tmp_path, *events, end, targets=(STROKE,)), "labels_end")
    assert (found.figures["target"], found.figures["year"]) == ("stroke", 2020)


def test_a_township_that_does_not_record_an_outcome_is_found(tmp_path):
    outcomes = strokes(300, range(2020, 2021)).filter(pl.col("subject_id") % 3 != 0)
    events = (people(300, townships=TOWNSHIPS), yearly("sbp", 300, range(2020, 2022), 120), outcomes)
    found = the(quality_of(tmp_path, *events, targets=(STROKE,)), "labels_lacking")
    assert (found.figures["township"], found.figures["now"]) == ("Qingxi", 0)
    assert found.figures["before"] == pytest.approx(2 / 3)


# freshness


def monthly(code: str, months: range, events: int, residents: int = 300) -> pl.DataFrame:
    """Make so many events in each month, counted from January 2020."""
    days = [datetime(2020 + m // 12, m % 12 + 1, 1 + n % 27) for m in months for n in range(events)]
    who = [1 + n % residents for _ in months for n in range(events)]
    return frame({"subject_id": who, "time": days, "code": code, "numeric_value": 80.0})


def test_records_that_end_long_before_the_day_of_judgement_are_stale(tmp_path):
    events = (people(20), yearly("sbp", 20, range(2020, 2022), 120))
    last = date(2021, 3, 1) + timedelta(days=19)
    quality = quality_of(tmp_path, *events, at="2021-12-01")
    assert the(quality, "stale").figures == {"last": str(last), "days": (date(2021, 11, 30) - last).days}
    assert row(quality, "freshness", concept="sbp")["last"] == last
    assert "stale" not in kinds(check(EventStore.open(tmp_path / "county"), at="2021-04-01"))


def test_a_month_with_too_few_events_is_found(tmp_path):
    events = [monthly("dbp", range(24), 200), monthly("dbp", range(24, 27), 30), monthly("dbp", range(27, 36), 200)]
    quality = quality_of(tmp_path, people(300), *events)
    found = [fault.figures for fault in quality.faults if fault.kind == "drop"]
    assert sorted(figures["month"] for figures in found) == ["2022-01", "2022-02", "2022-03"]
    assert found[0]["usual"] == 200
    assert row(quality, "volume_by_month", month="2022-02")["events"] == 30


def test_campaigns_and_a_month_that_is_not_over_are_no_drop(tmp_path):
    spring = [monthly("dbp", range(12 * year + 3, 12 * year + 6), 900) for year in range(4)]
    rest = [monthly("sbp", range(47), 150), monthly("sbp", range(47, 48), 5)]
    cut = {"at": "2023-12-03"}
    assert "drop" not in kinds(quality_of(tmp_path, people(300), *spring, *rest, **cut))


def test_a_township_and_a_concept_that_fell_silent_are_found(tmp_path):
    everywhere = monthly("sbp", range(36), 300)
    silent = (pl.col("subject_id") % 3 == 0) & (pl.col("time") >= datetime(2022, 7, 1))
    glucose = monthly("glucose_fasting", range(30), 100).with_columns(
        pl.lit(5.0).cast(pl.Float32).alias("numeric_value")
    )
    kept = pl.concat([everywhere.filter(~silent), glucose.filter(pl.col("subject_id") % 3 != 0)])
    quality = quality_of(tmp_path, people(300, townships=TOWNSHIPS), kept)
    assert the(quality, "silent_township").figures["township"] == "Qingxi"
    found = the(quality, "silent_concept")
    # 67 events a month of two townships, in July to November of the year before: December is not over
    assert (found.figures["concept"], found.level) == ("glucose_fasting", Level.SUSPICIOUS)


def test_a_yearly_campaign_is_not_silent_between_two(tmp_path):
    spring = [monthly("dbp", range(12 * year + 3, 12 * year + 5), 300) for year in range(3)]
    assert "silent_concept" not in kinds(quality_of(tmp_path, people(300), *spring, monthly("sbp", range(35), 150)))


def test_what_is_told_once_when_files_are_opened_is_not_silent_afterwards(tmp_path):
    opening = monthly("living_alone", range(12), 100).with_columns(pl.lit(1.0).cast(pl.Float32).alias("numeric_value"))
    assert "silent_concept" not in kinds(quality_of(tmp_path, people(300), opening, monthly("sbp", range(48), 50)))


# values told twice


def test_a_value_of_two_sources_is_told_twice(tmp_path):
    values = np.round(np.random.default_rng(0).normal(140, 12, 60), 1)
    again = measured("LOINC//718-7", values / 10, unit="g/dL")
    found = the(quality_of(tmp_path, people(60), measured("haemoglobin", values), again), "repeated")
    assert (found.figures["concept"], found.figures["repeated"], found.share) == ("haemoglobin", 60, 1)


def test_two_readings_of_a_visit_are_not_told_twice(tmp_path):
    rng = np.random.default_rng(0)
    first = np.round(rng.normal(130, 15, 300))
    second = first + np.round(rng.normal(0, 5, 300))
    later = measured("sbp", second, start=datetime(2020, 1, 1, 0, 5))
    assert "repeated" not in kinds(quality_of(tmp_path, people(300), measured("sbp", first), later))


# the whole


def county(residents: int = 120) -> tuple[pl.DataFrame, ...]:
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(130, 18, residents))
    return (
        people(residents, townships=TOWNSHIPS),
        measured("sbp", values),
        measured("creatinine", np.where(np.arange(residents) % 3, 80.0, 0.9)),
        strokes(residents // 2, range(2019, 2022)),
        measured("LOCAL//a", np.zeros(residents)),
        events_from(CONTRADICTIONS["after_death"], subject_id=4),
    )


def test_the_result_does_not_depend_on_how_the_records_are_cut_into_parts(tmp_path, monkeypatch):
    whole = quality_of(tmp_path / "whole", *county(), targets=(STROKE,)).as_dict()
    monkeypatch.setattr(survey, "EVENTS_AT_A_TIME", 150)
    parts = quality_of(tmp_path / "parts", *county(), targets=(STROKE,))
    assert len(list(parts.survey.shards())) >= 4
    assert parts.as_dict() == whole


def test_no_resident_is_cut_in_two(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "EVENTS_AT_A_TIME", 101)
    parts = list(quality_of(tmp_path, *county()).survey.shards())
    who = [resident for part in parts for resident in part.residents["subject_id"]]
    assert sorted(who) == list(range(1, 121))


def test_what_comes_at_the_day_of_judgement_or_later_is_not_looked_at(tmp_path):
    at_it = frame({"subject_id": [1], "time": datetime(2022, 1, 1), "code": "sbp", "numeric_value": 120.0})
    quality = quality_of(tmp_path, people(2), yearly("sbp", 2, range(2020, 2024), 120), at_it, at="2022-01-01")
    assert (quality.events, quality.survey.last_day) == (4 + 4, date(2021, 12, 31))
    assert quality.tables["completeness_by_year"]["year"].max() == 2021


def test_years_and_days_are_those_of_the_county_s_zone(tmp_path):
    store = EventStore.create(tmp_path / "county", timezone="Asia/Shanghai")
    # four in the morning of New Year's Day in Shanghai
    store.append([events_from("time | code | value\n2020-12-31T20:00 | sbp | 120")])
    found = check(store)
    assert found.tables["completeness_by_year"]["year"].to_list() == [2021]
    assert found.survey.last_day == date(2021, 1, 1)


def test_where_times_are_relative_no_calendar_is_judged(tmp_path):
    store = EventStore.create(tmp_path / "county", description={"relative_times": True})
    store.append([people(300), monthly("dbp", range(24), 200), monthly("dbp", range(24, 25), 3)])
    found = check(store, at="2030-01-01")
    assert not kinds(found) & {"stale", "drop", "silent_concept", "fallen"}
    assert "Times are counted from a day of each resident" in found.text()


def test_the_worst_is_read_first(tmp_path):
    quality = quality_of(tmp_path, *county(), targets=(STROKE,))
    levels = [fault.level for fault in quality.faults]
    assert levels == sorted(levels)
    assert {Level.WRONG, Level.SUSPICIOUS} == set(levels)
    first = quality.text().split("Read first\n")[1].splitlines()[0]
    assert first.split()[0] == "wrong"


def test_the_text_is_aligned_in_both_languages(tmp_path):
    quality = quality_of(tmp_path, *county(), targets=(STROKE,))
    english, chinese = quality.text("en"), quality.text("zh")
    assert "  wrong       creatinine: " in english
    assert "  错误  血清肌酐：" in chinese
    assert "脑卒中" in chinese
    assert english.count("\n") == chinese.count("\n")


def test_the_dict_holds_every_fault_with_its_sentence_and_is_json(tmp_path):
    quality = quality_of(tmp_path, *county(), targets=(STROKE,))
    found = quality.as_dict("zh")
    assert json.loads(json.dumps(found)) == found
    assert len(found["faults"]) == len(quality.faults)
    assert all(fault["sentence"] for fault in found["faults"])
    assert {"completeness_by_year_and_township", "labels_by_year", "last_digits_by_township"} <= set(found)


def test_a_language_that_reports_are_not_written_in_is_refused(tmp_path):
    with pytest.raises(WeibingError, match='There is no language "fr"'):
        quality_of(tmp_path, *county()).text("fr")


def test_a_store_without_dated_events_is_refused(tmp_path):
    with pytest.raises(WeibingError, match="holds no dated events"):
        quality_of(tmp_path, people(3))


def test_a_day_before_all_records_is_refused(tmp_path):
    with pytest.raises(WeibingError, match="holds no dated events before 1950-01-01"):
        quality_of(tmp_path, *county(), at="1950-01-01")


def test_every_sentence_has_the_same_figures_in_both_languages():
    for words in pl.read_csv(SENTENCES).iter_rows(named=True):
        figures = [
            sorted((name, how or "") for _, name, how, _ in string.Formatter().parse(words[language]) if name)
            for language in LANGUAGES
        ]
        assert figures[0] == figures[1], words["key"]
