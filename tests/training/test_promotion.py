"""The rule that lets a version serve, and the reasons that it gives."""

from dataclasses import replace
from math import nan

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from features.cohort import IndexTimes, Limit, Target
from training.calibrate import expit, logit
from training.promotion import HeldOut, decide
from training.subgroups import Subgroup
from training.validate import Estimate, validate

TARGET = Target("fall", ("fall_found",), "1y", IndexTimes(every="1y"), age=(65, 200), tiers=(0.1, 0.2, 0.4))
PEOPLE = 1500
GOOD = {
    "auroc": Estimate(0.75, 0.72, 0.78),
    "calibration_slope": Estimate(0.98, 0.85, 1.12),
    "observed_to_expected": Estimate(1.01, 0.93, 1.09),
}
Floats = NDArray[np.float64]


def risks(seed: int = 0) -> Floats:
    """The true risk of each of 1,500 residents, 27 % on average."""
    return expit(np.random.default_rng(seed).normal(-1.2, 1.1, PEOPLE))


def rows_of(risk: Floats, first: int = 1, year: int = 2020) -> pl.DataFrame:
    """Rows with these risks, whose outcomes come as the true risks say."""
    outcome = np.random.default_rng(1).random(PEOPLE) < risks()
    return pl.DataFrame(
        {
            "subject_id": np.arange(first, first + PEOPLE),
            "index_time": pl.repeat(pl.datetime(year, 1, 1), PEOPLE, eager=True),
            "outcome": outcome.astype(float),
            "weight": np.ones(PEOPLE),
            "risk": risk,
        }
    )


def version(number: str = "2", risk: Floats | None = None, **changed: object) -> HeldOut:
    """A version that shows nothing wrong, but for what is changed."""
    shown = HeldOut(
        target=TARGET,
        definition=("fall_found: coded or reported",),
        synthetic=False,
        metrics=GOOD,
        subgroups=(),
        alarms=(),
        version=number,
        rows=rows_of(risks() if risk is None else risk),
    )
    return replace(shown, **changed)


def refusals(challenger: HeldOut, champion: HeldOut | None = None) -> dict[str, str]:
    """What refuses it, and why."""
    decision = decide(challenger, champion, replicates=100)
    return {check.name: check.said for check in decision.refused}


def noisy(amount: float, seed: int = 5) -> Floats:
    """The true risks, blurred on the log-odds scale."""
    return expit(logit(risks()) + np.random.default_rng(seed).normal(0, amount, PEOPLE))


def test_a_first_version_that_shows_nothing_wrong_passes_every_check():
    decision = decide(version(), None, replicates=100)
    names = ["ranking", "calibration_slope", "observed_to_expected", "benefit", "subgroups", "leak_alarms"]
    assert [check.name for check in decision.checks] == names
    assert decision.refused == ()


@pytest.mark.parametrize(
    ("name", "figure", "said"),
    [
        ("calibration_slope", Estimate(-0.04, -0.3, 0.2), "-0.040 (-0.300 to 0.200), outside 0.8 to 1.25."),
        ("calibration_slope", Estimate(1.3, 1.2, 1.4), "1.300 (1.200 to 1.400), outside 0.8 to 1.25."),
        ("calibration_slope", Estimate(1.0, 0.6, 1.4), "not within 0.64 to 1.56: these rows cannot tell."),
        ("calibration_slope", Estimate(1.0, nan, nan), "1.000 (no interval), within 0.8 to 1.25, but"),
        ("calibration_slope", Estimate(nan, nan, nan), "not defined, outside 0.8 to 1.25."),
        ("observed_to_expected", Estimate(0.7, 0.65, 0.75), "observed to expected is 0.700 (0.650 to 0.750), outside"),
        ("observed_to_expected", Estimate(1.2, 0.9, 1.6), "these rows cannot tell."),
    ],
)
def test_a_calibration_out_of_bounds_or_too_uncertain_is_refused(name, figure, said):
    found = refusals(version(metrics=GOOD | {name: figure}))
    assert list(found) == [name]
    assert said in found[name]


@pytest.mark.parametrize("name", ["calibration_slope", "observed_to_expected"])
@pytest.mark.parametrize("figure", [Estimate(0.8, 0.64, 0.99), Estimate(1.25, 1.0, 1.5625)])
def test_a_calibration_on_its_bounds_passes(name, figure):
    assert refusals(version(metrics=GOOD | {name: figure})) == {}


def test_a_ranking_that_may_be_chance_is_refused():
    found = refusals(version(metrics=GOOD | {"auroc": Estimate(0.56, 0.49, 0.63)}))
    assert found == {"ranking": "AUROC 0.560 (0.490 to 0.630) is not shown to be better than chance."}


def test_risks_that_call_in_vain_are_refused():
    everyone = np.full(PEOPLE, 0.9)
    found = refusals(version(risk=everyone))
    # At 40 % a fall found is worth 1.5 calls in vain: calling all is worth 0.27 - 0.73 * 0.4 / 0.6 < 0.
    assert list(found) == ["benefit"]
    assert found["benefit"].startswith("At 40% its net benefit is below that of calling nobody: by -0.2")


@pytest.mark.parametrize(
    ("auroc", "ratio", "said"),
    [
        (Estimate(0.50, 0.46, 0.54), Estimate(1, 0.9, 1.1), "sex female: AUROC 0.500 (0.460 to 0.540) is below 0.55"),
        (Estimate(0.50, 0.44, 0.56), Estimate(1, 0.9, 1.1), None),
        (Estimate(0.70, 0.60, 0.80), Estimate(0.6, 0.55, 0.65), "observed to expected 0.600 (0.550 to 0.650) is outs"),
        (Estimate(0.70, 0.60, 0.80), Estimate(1.8, 1.6, 2.0), "observed to expected 1.800 (1.600 to 2.000) is outside"),
        (Estimate(0.70, 0.60, 0.80), Estimate(1.8, 1.4, 2.2), None),
        (Estimate(nan, nan, nan), Estimate(1, 0.9, 1.1), None),
    ],
)
def test_a_subgroup_is_refused_where_its_whole_interval_lies_beyond_a_floor(auroc, ratio, said):
    female = Subgroup("sex", "female", 500, 500, 90, {"auroc": auroc, "observed_to_expected": ratio})
    found = refusals(version(subgroups=(female,)))
    assert found.keys() == ({"subgroups"} if said else set())
    assert said is None or said in found["subgroups"]


def test_small_subgroups_are_counted_and_not_judged():
    bad = {"auroc": Estimate(0.3, 0.2, 0.4), "observed_to_expected": Estimate(3, 2.5, 3.5)}
    small = Subgroup("township", "Shixi", 40, 30, 12, bad, "fewer than 20 outcomes: no AUROC and no slope")
    fine = Subgroup("sex", "male", 500, 500, 90, {"auroc": GOOD["auroc"]})
    decision = decide(version(subgroups=(small, fine)), None, replicates=100)
    said = next(check.said for check in decision.checks if check.name == "subgroups")
    assert said == "None of 1 subgroups is shown to be beyond its floor; 1 too small to be judged."
    assert not decision.refused


def test_an_alarm_refuses_in_its_own_words():
    alarm = "fall_drug_ever alone tells the outcome with an AUROC of 0.97."
    assert refusals(version(alarms=(alarm,))) == {"leak_alarms": alarm}


def test_a_challenger_like_the_champion_or_better_passes():
    assert refusals(version(), version("1")) == {}
    assert refusals(version(), version("1", risk=noisy(0.8))) == {}


def test_a_challenger_that_ranks_worse_is_refused_with_the_difference():
    found = refusals(version(risk=noisy(1.5)), version("1"))
    assert "auroc" in found
    assert found["auroc"].startswith("On the common rows its AUROC is -0.08")
    assert found["auroc"].endswith(" beside the champion's: worse by more than 0.01.")


def test_a_challenger_that_calls_in_vain_where_the_champion_does_not_is_refused_though_it_ranks_as_well():
    found = refusals(version(risk=expit(logit(risks()) + 0.7)), version("1"))
    assert "auroc" not in found
    assert found["net_benefit_0.4"].startswith("On the common rows its net benefit at 40%, as a share of the outcomes")


def test_what_too_few_rows_cannot_tell_is_refused_as_such():
    few = pl.col("subject_id") <= 600
    challenger, champion = version(risk=noisy(0.5, 7)), version("1", risk=noisy(0.5, 8))
    found = refusals(replace(challenger, rows=challenger.rows.filter(few)), champion)
    # Its AUROC is even the higher one.
    assert found["auroc"].startswith("On the common rows its AUROC is +0.011 (-0.015 to +0.043)")
    assert found["auroc"].endswith("it may be worse by more than 0.01, and these rows cannot tell.")


def test_too_few_people_in_common_are_refused_with_the_number_found_and_needed():
    challenger = replace(version(), rows=rows_of(risks(), first=1 + PEOPLE - 200))
    found = refusals(challenger, version("1"))
    events = int(challenger.rows.filter(pl.col("subject_id") <= PEOPLE)["outcome"].sum())
    assert found == {
        "common_people": f"200 residents are held out by both, in 200 rows: {events} with the outcome and"
        f" {200 - events} without, where 100 of each are needed to compare them."
    }


def test_rows_are_common_when_both_the_resident_and_the_index_time_are():
    champion = replace(version("1"), rows=rows_of(risks(), year=2021))
    assert "0 residents are held out by both, in 0 rows" in refusals(version(), champion)["common_people"]


def test_the_outcomes_and_weights_of_the_challenger_count():
    champion = version("1", risk=noisy(0.8))
    backwards = champion.rows.with_columns(1 - pl.col("outcome"), weight=pl.lit(0.0))
    assert refusals(version(), replace(champion, rows=backwards)) == {}


def test_rows_of_unknown_outcome_are_left_aside():
    unknown = pl.col("subject_id") % 3 == 0
    rows = version().rows.with_columns(
        outcome=pl.when(~unknown).then("outcome"), weight=pl.when(unknown).then(0.0).otherwise("weight")
    )
    decision = decide(replace(version(), rows=rows), version("1"), replicates=100)
    said = next(check.said for check in decision.checks if check.name == "common_people")
    assert said.startswith("1,000 residents are held out by both, in 1,000 rows")
    assert not decision.refused


def test_where_only_some_people_are_common_the_calibration_must_hold_on_them_too():
    challenger = version()
    half = pl.col("subject_id") <= 1000
    off = challenger.rows.with_columns(risk=pl.when(half).then(pl.col("risk") * 0.6).otherwise("risk"))
    champion = replace(version("1"), rows=version("1").rows.filter(half))
    found = refusals(replace(challenger, rows=off), champion)
    assert "observed_to_expected_common" in found
    assert found["observed_to_expected_common"].startswith("On the common rows the ratio of observed to expected is 1.")


def test_simulated_residents_do_not_replace_real_ones():
    found = refusals(version(synthetic=True), version("1"))
    assert found == {"records": "The challenger learnt from simulated residents, the champion from real ones."}
    assert refusals(version(), version("1", synthetic=True)) == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"target": replace(TARGET, horizon="2y")}, 'horizon "365" became "730"'),
        ({"target": replace(TARGET, absent=("dementia",))}, 'absent "" became "dementia"'),
        ({"target": replace(TARGET, limits=(Limit("sbp", below=140),))}, "latest"),
        ({"target": replace(TARGET, age=(60, 200))}, 'age "65, 200" became "60, 200"'),
        ({"definition": ("fall_found: coded",)}, 'outcome "fall_found: coded or reported" became "fall_found: coded"'),
    ],
)
def test_another_target_under_the_same_name_is_refused(changed, said):
    found = refusals(version(**changed), version("1"))
    assert list(found) == ["target"]
    assert said in found["target"]


def test_what_does_not_change_who_is_predicted_is_the_same_target():
    other = replace(TARGET, tiers=(0.05, 0.1, 0.2), increasing=("age",), label_en="falls")
    assert refusals(version(target=other), version("1")) == {}


def test_a_decision_says_every_check_in_text_and_json():
    decision = decide(version(metrics=GOOD | {"auroc": Estimate(0.5, 0.4, 0.6)}), version("1"), replicates=100)
    lines = decision.text().splitlines()
    assert lines[0] == "Version 2 of fall, against the champion, version 1:"
    assert len(lines) == 1 + len(decision.checks)
    assert lines[1].startswith("REFUSED  ranking ")
    assert lines[2].startswith("passed   calibration_slope ")
    told = decision.as_dict()
    assert told["refused"] == ["ranking"]
    assert told["checks"][0]["figure"] == {"estimate": 0.5, "lower": 0.4, "upper": 0.6}
    assert all(check["said"].endswith(".") for check in told["checks"])


def test_the_figures_of_a_perfect_model_pass_the_rule():
    rows = rows_of(risks())
    columns = (rows[name].to_numpy() for name in ("outcome", "risk", "weight", "subject_id"))
    assert refusals(version(metrics=validate(*columns, replicates=100).metrics)) == {}
