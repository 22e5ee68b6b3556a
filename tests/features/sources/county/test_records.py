"""What a synthetic county records agrees with itself, with the vocabulary and with what is true of the residents."""

from datetime import datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import schema as meds

from features.sources.county import County
from features.sources.county.period import DAYS_A_YEAR, day_of
from features.sources.county.records import ILLNESSES
from features.sources.county.tables import FOLDER, rate, rows
from features.vocabulary import builtin

FIRST, LAST = 2017, 2024


def new_year(year: int) -> int:
    return day_of(datetime(year, 1, 1).date())


def values(records, concept: str, low: float, high: float) -> pl.DataFrame:
    found = records.events.filter((pl.col("code") == concept) & pl.col("numeric_value").is_between(low, high))
    return found.filter(pl.col("unit").is_null()).join(records.residents, on="subject_id")


def test_the_store_conforms_to_meds(records):
    for shard in records.store.shards:
        meds.DataSchema.validate(meds.DataSchema.align(pq.read_table(shard)))


def test_the_county_says_what_it_is(records):
    assert records.store.description["synthetic"] is True
    assert records.store.timezone == "Asia/Shanghai"
    assert records.county == County(30_000, len(records.events), datetime(2016, 12, 31, 16), datetime(2024, 12, 31, 16))
    assert records.residents.height == 30_000


def test_nothing_is_recorded_before_birth_or_the_record_nor_after_death_or_moving(records):
    life = records.events.drop_nulls("time").join(records.residents, on="subject_id")
    assert life.filter((pl.col("day") < pl.col("born")) | (pl.col("day") > pl.col("end"))).is_empty()
    dated = life.filter(pl.col("code") != "MEDS_BIRTH")
    assert dated["day"].min() >= new_year(FIRST)
    assert dated["time"].max() == records.county.end


def test_everyone_is_born_once_and_ends_once(records):
    ends = records.events.filter(pl.col("code").is_in(["MEDS_BIRTH", "MEDS_DEATH", "OBSERVATION_END"]))
    kinds = ends.group_by("subject_id").agg(pl.col("code").sort())["code"].to_list()
    assert {tuple(codes) for codes in kinds} == {("MEDS_BIRTH", "MEDS_DEATH"), ("MEDS_BIRTH", "OBSERVATION_END")}


def test_who_someone_is_has_no_time_and_everyone_has_one_township(records):
    statics = records.events.filter(pl.col("time").is_null())
    assert set(statics["code"]) == {"female", "rural", "education", "township"}
    townships = statics.filter(pl.col("code") == "township")
    assert sorted(townships["subject_id"]) == sorted(records.residents["subject_id"])
    assert set(townships["text_value"]) == {row["township"] for row in rows("townships")}


def test_every_code_is_known_but_for_some_common_illnesses(records):
    unknown = {code for code in records.events["code"].unique() if not builtin().meanings(code)}
    assert unknown == set(ILLNESSES)


def test_events_are_as_many_as_in_a_county(records):
    years = (LAST + 1 - FIRST) / 10
    assert 100 < records.events.height / records.residents.height / years < 165


def test_every_figure_has_a_source_and_a_mark_of_trust():
    for table in sorted(FOLDER.glob("*.csv")):
        for row in rows(table.stem):
            assert row["source"], (table.name, row)
            assert row["trust"] in {"VP", "VI", "VS", "M", "M-"}, (table.name, row)


# The true layer and the recorded one


@pytest.mark.parametrize("disease", ["hypertension", "diabetes"])
def test_a_disease_is_found_only_after_it_began(records, disease):
    found = records.residents.drop_nulls(f"{disease}_found")
    assert found.height > 1_000
    assert (found[f"{disease}_began"] <= found[f"{disease}_found"]).all()


def test_the_codes_of_a_disease_come_on_the_day_it_is_found_or_is_registered(records):
    coded = records.residents.join(records.first("^ICD10//I10$"), on="subject_id")
    new = coded.filter(pl.col("hypertension_found") >= new_year(FIRST))
    assert (new["first"] == new["hypertension_found"]).all()
    old = coded.filter(pl.col("hypertension_found") < new_year(FIRST))
    assert (old["first"] < new_year(FIRST + 1)).all()


def test_nobody_reaches_a_high_pressure_on_three_days_of_a_year_before_the_finding(records):
    pressure = records.events.filter(pl.col("code").is_in(["sbp", "dbp"]) & (pl.col("numeric_value") < 300))
    limit = pl.when(pl.col("code") == "sbp").then(140).otherwise(90)
    high = pressure.filter(pl.col("numeric_value") >= limit).join(records.residents, on="subject_id")
    registered = pl.col("hypertension_found") < new_year(FIRST + 1)
    early = high.filter(~registered.fill_null(value=False))
    early = early.filter(pl.col("hypertension_found").is_null() | (pl.col("day") < pl.col("hypertension_found") - 2))
    days = early.select("subject_id", "day").unique().sort("subject_id", "day")
    second = pl.col("day").shift(-2).over("subject_id") - pl.col("day")
    assert days.height > 5_000
    assert days.select(second.min()).item() > 365


def test_undiagnosed_hypertension_shows_in_the_pressure(records):
    pressure = values(records, "sbp", 70, 250)
    unfound = pl.col("hypertension_found").is_null() | (pl.col("day") < pl.col("hypertension_found") - 2)
    ill = (pl.col("hypertension_began") <= pl.col("day")).fill_null(value=False)
    mean = pressure.filter(unfound).group_by(ill.alias("ill")).agg(pl.col("numeric_value").mean()).sort("ill")
    well, undiagnosed = mean["numeric_value"]
    assert undiagnosed > well + 10


def test_hypertension_is_found_by_high_pressure_on_three_days_in_a_row(records):
    pressure = values(records, "sbp", 100, 250)
    new = pressure.filter(pl.col("hypertension_found") >= new_year(FIRST) + 2)
    before = (pl.col("hypertension_found") - pl.col("day")).alias("before")
    days = (
        new.filter(before.is_between(0, 2)).group_by("subject_id").agg(pl.col("numeric_value").min(), before.n_unique())
    )
    assert (days["numeric_value"] >= 140).mean() > 0.95
    assert (days["before"] == 3).mean() > 0.95


def test_half_of_the_pressures_under_treatment_are_controlled_and_few_without(records):
    drugs = records.first("//C0[23789]")
    readings = values(records, "sbp", 70, 250).filter(pl.col("day") > pl.col("hypertension_found"))
    controlled = (pl.col("numeric_value") < 140).mean()
    treated = readings.join(drugs, on="subject_id").filter(pl.col("day") > pl.col("first"))
    untreated = readings.join(drugs, on="subject_id", how="anti")
    assert 0.4 < treated.select(controlled).item() < 0.65
    assert untreated.select(controlled).item() < 0.35


def test_a_drug_comes_only_after_its_disease_is_found(records):
    for pattern, disease in (("//C0[23789]", "hypertension"), ("//A10", "diabetes")):
        taken = records.residents.join(records.first(pattern), on="subject_id")
        assert taken.height > 800
        assert (taken["first"] >= taken[f"{disease}_found"]).all()


def test_no_one_shows_two_high_glucoses_before_diabetes_is_found(records):
    glucose = values(records, "glucose_fasting", 1, 40).filter(pl.col("numeric_value") >= 7)
    new = (pl.col("diabetes_found") >= new_year(FIRST + 1)) | pl.col("diabetes_found").is_null()
    early = pl.col("diabetes_found").is_null() | (pl.col("day") < pl.col("diabetes_found"))
    counts = glucose.filter(new & early).group_by("subject_id").len()
    assert counts.height > 100
    # A lost decimal point or an unlabelled unit is no finding of the law.
    assert (counts["len"] > 1).mean() < 0.02


# Falls


def test_a_fall_is_coded_five_to_ten_times_less_often_than_told(records):
    answers = records.events.filter(pl.col("code") == "fell_past_year")
    told = answers["numeric_value"].mean()
    aged = sum(records.aged(year, 65).height for year in range(FIRST, LAST + 1))
    coded = records.events.filter(pl.col("code").str.contains("//W")).join(records.residents, on="subject_id")
    coded = coded.filter((pl.col("day") - pl.col("born")) / DAYS_A_YEAR >= 65)
    fallers = coded.with_columns(year=(pl.col("day") / DAYS_A_YEAR).floor()).unique(["subject_id", "year"]).height
    assert 5 <= told / (fallers / aged) <= 10


def test_falls_are_asked_for_at_check_ups_of_some_clinics_alone(records):
    old = records.aged(2020, 66)
    year = records.events.filter(pl.col("day").is_between(new_year(2020), new_year(2021), closed="left"))
    examined = old.join(year.filter(pl.col("code") == "examination"), on="subject_id", how="semi")
    asked = old.join(year.filter(pl.col("code") == "fell_past_year"), on="subject_id", how="semi")
    assert asked.join(examined, on="subject_id", how="anti").is_empty()
    assert asked.height / examined.height == pytest.approx(0.35, abs=0.03)


def test_whoever_had_a_fall_noted_in_the_past_year_says_so_when_asked(records):
    answers = records.events.filter(pl.col("code") == "fell_past_year").select("subject_id", "day", "numeric_value")
    noted = records.events.filter(pl.col("code").str.contains("//W|^TEXT//fall$")).select("subject_id", fell="day")
    both = answers.join(noted, on="subject_id").filter(
        (pl.col("fell") >= pl.col("day") - 365) & (pl.col("fell") < pl.col("day"))
    )
    assert both.height > 100
    assert (both["numeric_value"] == 1).all()


def test_a_note_of_a_fall_is_in_words(records):
    notes = records.events.filter(pl.col("code") == "TEXT//fall")
    assert notes["text_value"].str.contains("倒").all()


def test_an_injury_bears_an_external_cause_on_its_day(records):
    injuries = records.events.filter(pl.col("code").str.contains(r"//S\d\d")).select("subject_id", "day")
    causes = records.events.filter(pl.col("code").str.contains("//W")).select("subject_id", "day")
    assert injuries.height > 200
    assert injuries.join(causes, on=["subject_id", "day"], how="anti").is_empty()


# Gradients


def test_residents_who_live_far_are_measured_less(records):
    """Informative missingness: as many pressures a year of the most remote fifth as of the nearest fifth, it is not."""
    far = records.events.filter(pl.col("code") == "distance_to_clinic")
    far = far.group_by("subject_id").agg(pl.col("numeric_value").median().alias("km"))
    measured = records.events.filter(pl.col("code") == "cholesterol").group_by("subject_id").len("times")
    old = records.aged(2020, 66).join(far, on="subject_id").join(measured, on="subject_id", how="left")
    near_km, far_km = np.quantile(old["km"], (0.2, 0.8))
    times = pl.col("times").fill_null(0).mean()
    nearest, remotest = (
        old.filter(some).select(times).item() for some in (pl.col("km") < near_km, pl.col("km") > far_km)
    )
    assert remotest < 0.92 * nearest


@pytest.mark.parametrize(
    ("raised_by", "of"),
    [
        ("hypertension_began", "^ICD10//I6[13]"),
        ("hypertension_began", "^MEDS_DEATH$"),
        ("diabetes_began", "//N18|//E11.2"),
    ],
)
def test_hypertension_and_diabetes_raise_what_they_cause(records, raised_by, of):
    """Among people of 65 to 75 in the middle of the record."""
    here = records.aged(2020, 65).filter(pl.col("born") > new_year(2020) - 75 * DAYS_A_YEAR)
    here = here.join(records.first(of), on="subject_id", how="left")
    came = (pl.col("first") >= new_year(2020)).fill_null(value=False).mean()
    ill = (pl.col(raised_by) < new_year(2020)).fill_null(value=False)
    assert here.filter(ill).select(came).item() > 1.15 * here.filter(~ill).select(came).item()


def test_women_old_of_the_country_and_unschooled_know_less_school(records):
    told = records.events.filter(pl.col("code") == "education").select("subject_id", school="numeric_value")
    people = records.residents.join(told, on="subject_id")
    old = people.filter(pl.col("born") < new_year(1960))
    young = people.filter(pl.col("born").is_between(new_year(1985), new_year(2000)))
    assert young["school"].mean() > old["school"].mean() + 1


# Faults and devices


def test_a_few_values_are_impossible_and_a_few_in_another_unit(records):
    """Each unit of `faults.csv` occurs, and all faults together are rare; infants are beyond the plausible ranges."""
    grown = records.residents.filter(pl.col("born") < new_year(FIRST) - 7 * DAYS_A_YEAR).select("subject_id")
    measured = records.events.drop_nulls("numeric_value").join(grown, on="subject_id")
    limits = {name: (concept.low, concept.high) for name, concept in builtin().concepts.items()}
    impossible = 0
    for (code,), some in measured.filter(pl.col("unit").is_null()).group_by("code"):
        impossible += some.filter(~pl.col("numeric_value").is_between(*limits[code])).height
    assert set(measured.drop_nulls("unit")["unit"]) == {row["unit"] for row in rows("faults") if row["unit"]}
    assert 0 < impossible / measured.height < 0.001
    assert 0 < measured["unit"].is_not_null().mean() < 0.005


def test_tens_and_even_numbers_are_preferred_in_blood_pressure(records):
    last_digit = values(records, "sbp", 70, 250)["numeric_value"].cast(pl.Int64) % 10
    assert (last_digit % 2 == 0).all()
    assert 0.35 < (last_digit == 0).mean() < 0.55


def test_devices_measure_often_of_few_at_their_hours(records):
    for concept, hours in (("home_sbp", {7, 20}), ("steps", {23}), ("wearable_heart_rate", {3, 15})):
        readings = records.events.filter(pl.col("code") == concept)
        local = readings.select(((pl.col("time").dt.hour() + 8) % 24).alias("hour"))["hour"]
        assert set(local) == hours
        owners = readings["subject_id"].n_unique()
        assert 0 < owners / records.residents.height < 0.02
        assert readings.height / owners > 20


def test_missed_follow_ups_are_written_down_sometimes(records):
    missed = records.events.filter(pl.col("code") == "missed_follow_up").height
    kept = records.events.filter(pl.col("code") == "follow_up_visit").height
    assert 0.05 < missed / kept < 0.5
    assert rate("missed_follow_up_noted") < 1
