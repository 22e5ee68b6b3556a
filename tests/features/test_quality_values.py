"""Numbers in the wrong unit, impossible, missing or far out; and codes nobody knows."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from features.quality.spread import Counted, bounds
from features.quality.units import suspicion
from features.vocabulary import builtin
from tests.features.quality_records import TOWNSHIPS, kinds, measured, people, quality_of, row, the

UNIT_KINDS = {"unit", "unit_in_township"}
# What adults have: the median in the canonical unit, and the standard deviation of the logarithm.
USUAL = {
    "creatinine": (75, 0.2),
    "glucose_fasting": (5.4, 0.15),
    "cholesterol": (4.8, 0.2),
    "triglycerides": (1.4, 0.5),
    "haemoglobin": (140, 0.1),
    "uric_acid": (330, 0.25),
    "hba1c": (5.8, 0.12),
    "height": (163, 0.05),
    "weight": (62, 0.17),
    "waist": (84, 0.12),
    "temperature": (36.6, 0.01),
    "sbp": (132, 0.13),
    "dbp": (82, 0.12),
    "uacr": (9, 1.1),
    "crp": (1.5, 1.0),
    "grip_strength": (28, 0.3),
    "sleep_hours": (7, 0.2),
}


def usual(concept: str, residents: int, seed: int = 0) -> np.ndarray:
    median, spread = USUAL[concept]
    return np.round(median * np.exp(np.random.default_rng(seed).normal(0, spread, residents)), 1)


OTHER_UNITS = {
    "creatinine": ("mg/dL", 1 / 88.4, 0),
    "glucose_fasting": ("mg/dL", 18.016, 0),
    "cholesterol": ("mg/dL", 38.67, 0),
    "triglycerides": ("mg/dL", 88.57, 0),
    "haemoglobin": ("g/dL", 0.1, 0),
    "uric_acid": ("mg/dL", 1 / 59.48, 0),
    "hba1c": ("mmol/mol", 10.93, -23.5),
    "height": ("m", 0.01, 0),
    "temperature": ("[degF]", 1.8, 32),
    "sbp": ("kPa", 1 / 7.50062, 0),
    "grip_strength": ("N", 9.807, 0),
    "sleep_hours": ("min", 60, 0),
}


def test_values_that_are_impossible_but_usual_in_another_unit_are_suspected_of_it(tmp_path):
    parts = []
    for concept, (_, factor, offset) in OTHER_UNITS.items():
        values = usual(concept, 1000)
        values[:50] = values[:50] * factor + offset
        parts.append(measured(concept, values))
    found = quality_of(tmp_path, people(1000), *parts).tables["unit_suspicions"]
    looks_like = dict(found.select("concept", "looks_like").iter_rows())
    assert looks_like == {concept: unit for concept, (unit, _, _) in OTHER_UNITS.items()}
    assert found["share"].to_list() == pytest.approx([0.05] * len(OTHER_UNITS), abs=0.006)


def test_two_modes_within_the_plausible_range_are_told_apart_by_the_factor_of_a_unit(tmp_path):
    values = usual("weight", 2000)
    values[:900] *= 2
    quality = quality_of(tmp_path, people(2000), measured("weight", values))
    assert the(quality, "unit").figures["looks_like"] == "斤"
    assert the(quality, "unit").share == pytest.approx(900 / 2000, abs=0.03)
    assert row(quality, "unit_suspicions")["sign"] == "modes"


def test_a_township_whose_values_are_all_twice_the_others_is_found(tmp_path):
    # An eighth of all values, which the others hide: only the township's own median tells.
    townships = ("Baita", "Dahe", "Donghu", "Liulin", "Qingshan", "Qingxi", "Shiqiao", "Yunling")
    values = usual("weight", 800)
    values[np.arange(1, 801) % 8 == 0] *= 2
    quality = quality_of(tmp_path, people(800, townships=townships), measured("weight", values))
    found = the(quality, "unit_in_township")
    assert (found.figures["township"], found.figures["looks_like"], found.count) == ("Baita", "斤", 100)
    assert row(quality, "unit_suspicions")["sign"] == "township"
    assert row(quality, "unit_suspicions_by_township", township="Baita")["share"] == 1
    assert row(quality, "unit_suspicions_by_township", township="Dahe")["share"] == 0


def test_suspected_values_say_which_township_they_come_from(tmp_path):
    values = usual("creatinine", 900)
    in_dahe = np.arange(1, 901) % 3 == 2
    values[in_dahe] /= 88.4
    found = the(
        quality_of(tmp_path, people(900, townships=TOWNSHIPS), measured("creatinine", values)), "unit_in_township"
    )
    assert (found.figures["township"], found.figures["township_share"]) == ("Dahe", 1.0)
    assert found.count == pytest.approx(300, rel=0.02)


def test_a_code_with_nothing_but_another_unit_is_suspected_by_the_values_of_other_codes(tmp_path):
    right, wrong = usual("creatinine", 400), usual("creatinine", 400, seed=1) / 88.4
    quality = quality_of(
        tmp_path,
        people(400),
        measured("creatinine", right),
        measured("LOINC//14682-9", wrong, start=datetime(2021, 1, 1)),
    )
    found = the(quality, "unit")
    assert (found.figures["code"], found.figures["looks_like"]) == ("LOINC//14682-9", "mg/dL")
    assert found.share == pytest.approx(1, abs=0.02)


def test_a_stated_unit_may_be_the_wrong_one(tmp_path):
    values = usual("glucose_fasting", 500)
    quality = quality_of(
        tmp_path,
        people(500),
        measured("glucose_fasting", values),
        measured("glucose_fasting", values, start=datetime(2021, 1, 1), unit="mg/dL"),
    )
    assert (the(quality, "unit").figures["unit"], the(quality, "unit").figures["looks_like"]) == ("mg/dL", "mmol/L")


def test_values_in_one_unit_are_not_suspected(tmp_path):
    parts = [measured(concept, usual(concept, 1500)) for concept in USUAL]
    assert not len(quality_of(tmp_path, people(1500, townships=TOWNSHIPS), *parts).tables["unit_suspicions"])


@pytest.mark.parametrize("seed", range(20))
def test_few_values_that_spread_widely_are_not_suspected(seed):
    values, events = np.unique(usual("uacr", 60, seed), return_counts=True)
    counted = Counted(values, events)
    assert suspicion(counted, (1.0, 0.0), builtin().concepts["uacr"], builtin(), counted) is None


def test_values_rounded_to_tens_are_not_taken_for_modes(tmp_path):
    quality = quality_of(tmp_path, people(2000), measured("weight", np.round(usual("weight", 2000), -1)))
    assert not kinds(quality) & UNIT_KINDS


def test_the_height_of_infants_is_not_taken_for_inches(tmp_path):
    adults, infants = people(1000), people(300, born=datetime(2019, 8, 1)).with_columns(pl.col("subject_id") + 1000)
    small = measured("height", np.round(np.random.default_rng(0).normal(65, 3, 300), 1))
    quality = quality_of(
        tmp_path,
        adults,
        infants,
        measured("height", usual("height", 1000)),
        small.with_columns(pl.col("subject_id") + 1000),
    )
    assert not kinds(quality) & UNIT_KINDS


def test_a_few_slips_of_the_pen_are_no_unit(tmp_path):
    values = usual("creatinine", 5000)
    values[:9] /= 88.4
    assert not kinds(quality_of(tmp_path, people(5000), measured("creatinine", values))) & UNIT_KINDS


def test_a_unit_of_one_value_in_a_hundred_is_wrong_and_of_far_fewer_a_note(tmp_path):
    rare, common = usual("creatinine", 5000), usual("glucose_fasting", 5000)
    rare[:12] /= 88.4
    common[:50] *= 18.016
    quality = quality_of(tmp_path, people(5000), measured("creatinine", rare), measured("glucose_fasting", common))
    levels = {fault.figures["concept"]: fault.level.name for fault in quality.faults if fault.kind == "unit"}
    assert levels == {"creatinine": "NOTE", "glucose_fasting": "WRONG"}


def test_impossible_values_are_listed_with_the_code_they_bear(tmp_path):
    values = usual("sbp", 400)
    values[:20] = 999
    values[20] = 0
    quality = quality_of(tmp_path, people(400), measured("LOINC//8480-6", values, unit="mm[Hg]"))
    found = the(quality, "implausible")
    assert (found.level.name, found.count) == ("WRONG", 21)
    assert row(quality, "implausible_values") == {
        "concept": "sbp",
        "code": "LOINC//8480-6",
        "unit": "mm[Hg]",
        "events": 21,
        "smallest": 0.0,
        "largest": 999.0,
        "commonest": 999.0,
        "commonest_events": 20,
        "of": 400,
        "share": 21 / 400,
    }


def test_measurements_without_a_number_are_counted(tmp_path):
    values = [None if n < 40 else 120.0 for n in range(100)]
    found = the(quality_of(tmp_path, people(100), measured("sbp", pl.Series(values, dtype=pl.Float64))), "no_value")
    assert (found.figures["code"], found.count, found.share) == ("sbp", 40, 0.4)


def test_an_unknown_unit_is_found(tmp_path):
    found = the(quality_of(tmp_path, people(50), measured("sbp", usual("sbp", 50), unit="furlong")), "unknown_unit")
    assert (found.figures["concept"], found.figures["unit"], found.count) == ("sbp", "furlong", 50)


def test_unknown_codes_are_counted_the_most_frequent_first(tmp_path):
    often, seldom = measured("LOCAL//a", np.zeros(30)), measured("LOCAL//b", np.zeros(10))
    quality = quality_of(tmp_path, people(60), often, seldom, measured("sbp", usual("sbp", 60)))
    assert quality.tables["unknown_codes"]["code"].to_list() == ["LOCAL//a", "LOCAL//b"]
    found = the(quality, "unknown_codes")
    # 60 births, 60 sexes, 60 pressures and 40 events of unknown codes
    assert (found.figures["codes"], found.count, found.share) == (2, 40, 40 / 220)


def test_values_far_from_the_others_are_outliers_though_each_is_plausible(tmp_path):
    values = usual("temperature", 500)
    values[:12] = 43.0
    quality = quality_of(tmp_path, people(500), measured("temperature", values))
    found = the(quality, "outliers")
    assert (found.figures["concept"], found.count, found.level.name) == ("temperature", 12, "NOTE")
    assert row(quality, "values", concept="temperature")["usual_high"] < 43


def test_a_long_tail_to_the_right_is_judged_by_its_logarithms():
    values = np.sort(np.exp(np.random.default_rng(0).normal(0, 1, 5000)))
    found = bounds(Counted(values, np.ones(5000, np.int64)), 6.0)
    assert found.low > 0
    assert found.high > values[-1]
    # exp(0) in the middle, and e to the sixth standard deviation at the end
    assert found.median == pytest.approx(1, rel=0.05)
    assert found.high == pytest.approx(np.exp(6), rel=0.3)


def test_where_half_of_the_values_are_the_same_nothing_is_far_out():
    assert bounds(Counted(np.array([1.0, 2.0, 9.0]), np.array([10, 80, 10])), 6.0) is None


def test_quantiles_of_counted_values_are_those_of_the_values():
    values = np.random.default_rng(1).integers(0, 50, 999)
    distinct, events = np.unique(values, return_counts=True)
    counted = Counted(distinct.astype(float), events)
    for share in (0.01, 0.25, 0.5, 0.9):
        assert counted.quantile(share) == np.quantile(values, share, method="inverted_cdf")
