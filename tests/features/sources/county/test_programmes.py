"""What programmes do to whom, known beforehand and applied."""

from datetime import date

import polars as pl
import pytest

from features.sources.county import simulate
from features.sources.county.tables import rows

COUNTY = {"residents": 10_000, "years": 4, "seed": 5}
FROM = date(2023, 1, 1)


@pytest.fixture(scope="module")
def effects(records) -> pl.DataFrame:
    return pl.read_parquet(records.store.path / "effects.parquet")


def test_every_intervention_has_a_row_for_everyone_at_risk_of_its_target(records, effects):
    for row in rows("interventions"):
        some = effects.filter(intervention=row["intervention"])
        at_risk = records.truth.filter(target=row["target"])
        assert (
            some.select("subject_id", "index_time")
            .sort("subject_id", "index_time")
            .equals(at_risk.select("subject_id", "index_time").sort("subject_id", "index_time"))
        )
        assert 0.05 < some["eligible"].mean() <= 1


def test_it_lowers_the_risk_of_the_eligible_and_leaves_the_others_as_they_are(effects):
    eligible = effects.filter("eligible")
    assert (eligible["risk_if_treated"] < eligible["risk"]).mean() > 0.999
    others = effects.filter(~pl.col("eligible"))
    assert others["risk_if_treated"].equals(others["risk"])


def test_the_removal_of_hazards_at_home_is_for_those_at_high_risk_alone(effects):
    homes = effects.filter(intervention="home_hazards").group_by("eligible").agg(pl.col("risk").mean(), pl.len())
    shares = dict(homes.select("eligible", "len").rows())
    mean = dict(homes.select("eligible", "risk").rows())
    assert 0.2 < shares[True] / (shares[True] + shares[False]) < 0.6
    assert mean[True] > 2 * mean[False]


def test_an_effect_on_a_part_of_the_outcome_is_less_than_its_ratio(effects):
    """Foot care lowers the hazard of a diabetic foot by 41 %, that of any complication by what feet are of it."""
    care = effects.filter(intervention="foot_care")
    relative = 1 - care["risk_if_treated"].mean() / care["risk"].mean()
    assert 0 < relative < 0.1


@pytest.fixture(scope="module")
def counties(tmp_path_factory) -> dict[str, object]:
    """Two counties that differ by a programme alone, which takes every second of the eligible from 2023 on."""
    home = tmp_path_factory.mktemp("programmes")
    simulate(home / "without", **COUNTY)
    chosen = range(2, COUNTY["residents"] + 1, 2)
    simulate(home / "with", **COUNTY, interventions={"exercise": chosen, "salt_substitute": 1.0}, treated_from=FROM)
    return home


def of(home, name: str, file: str) -> pl.DataFrame:
    found = pl.read_parquet(home / name / f"{file}.parquet")
    if "index_time" in found.columns:
        found = found.with_columns(date=(pl.col("index_time") + pl.duration(hours=8)).dt.date())
    return found


def test_until_a_programme_begins_the_counties_are_one(counties):
    before = pl.col("date") < FROM
    for file in ("truth", "effects"):
        without, with_it = (of(counties, name, file).filter(before) for name in ("without", "with"))
        assert without.equals(with_it)


def test_the_risk_of_the_treated_is_the_one_foretold(counties):
    """Falls, on the first day of the programme."""
    foretold = of(counties, "without", "effects").filter(
        (pl.col("date") == FROM) & (pl.col("intervention") == "exercise")
    )
    now = of(counties, "with", "truth").filter(date=FROM, target="fall")
    both = foretold.join(now.select("subject_id", now="risk"), on="subject_id")
    treated = pl.col("eligible") & (pl.col("subject_id") % 2 == 0)
    assert both.filter(treated).select((pl.col("now") - pl.col("risk_if_treated")).abs().max()).item() < 1e-12
    assert both.filter(~treated).select((pl.col("now") - pl.col("risk")).abs().max()).item() < 1e-12
    assert both.filter(treated).height > 500


def test_whoever_is_in_a_programme_is_not_eligible_for_it_again(counties):
    later = of(counties, "with", "effects").filter(date=FROM, intervention="exercise")
    assert not later.filter(pl.col("subject_id") % 2 == 0)["eligible"].any()
    assert later.filter(pl.col("subject_id") % 2 == 1)["eligible"].any()


def test_a_programme_prevents_and_causes_nothing(counties):
    """With chance alike, no one gets hypertension who would not have got it without the salt substitute."""
    without, with_it = (of(counties, name, "hidden") for name in ("without", "with"))
    both = without.join(with_it, on="subject_id", suffix="_with")
    began, then = pl.col("hypertension_began"), pl.col("hypertension_began_with")
    earlier = both.filter(then.is_not_null() & (began.is_null() | (then < began)))
    prevented = both.filter(began.is_not_null() & (then.is_null() | (then > began)))
    assert earlier.is_empty()
    assert prevented.height > 20
    assert prevented["hypertension_began"].min() >= FROM
