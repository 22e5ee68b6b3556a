"""The county's rates beside the published ones, and how they are counted."""

import json
from dataclasses import replace

import pytest

from features.sources.county.comparison import Tally, compare, summary, table
from features.sources.county.tables import rows


@pytest.fixture(scope="module")
def compared(records):
    return compare(records.store.path)


@pytest.mark.parametrize(
    "number", range(len(rows("published"))), ids=lambda number: f"{rows('published')[number]['measure']} {number}"
)
def test_a_rate_lies_in_its_stated_range(compared, number):
    rate = compared[number]
    assert rate.low <= rate.simulated <= rate.high, f"{rate.measure}, {rate.whom}: {rate.simulated:.2f}"


def test_a_published_figure_lies_in_the_range_stated_for_it():
    for row in rows("published"):
        assert float(row["low"]) < float(row["high"]), row
        assert not row["published"] or float(row["low"]) <= float(row["published"]) <= float(row["high"]), row


def test_the_table_and_the_json_say_the_same_of_every_rate(compared):
    said = json.loads(json.dumps(summary(compared)))
    assert said["within"] == sum(rate["within"] for rate in said["rates"]) == len(rows("published"))
    lines = table(compared).splitlines()[1:]
    for rate, line in zip(said["rates"], lines[:-1], strict=True):
        assert rate["measure"] in line
        assert f"{rate['simulated']:.1f}" in line
        assert rate["source"] in line
    assert lines[-1] == f"{len(compared)} of {len(compared)} rates lie in their ranges."


def test_a_rate_outside_of_its_range_is_said_to_be(compared):
    low = replace(compared[0], simulated=compared[0].low - 1)
    assert not low.within
    assert " NO " in table([low])
    assert table([low]).endswith("0 of 1 rates lie in their ranges.")


def test_a_rate_of_nobody_is_null_in_json_and_not_within(compared):
    nobody = replace(compared[0], simulated=float("nan"))
    assert summary([nobody])["within"] == 0
    assert summary([nobody])["rates"][0]["simulated"] is None


def test_shards_are_counted_together():
    """2 of 10 and 3 of 30 are 5 of 40."""
    assert Tally(2, 10).plus(Tally(3, 30)) == Tally(5, 40)


def test_true_prevalence_is_that_of_whoever_is_ill_and_not_of_whoever_is_known(records, compared):
    """Counted again by hand: of those of 55 to 64 on the first of January 2018."""
    here = records.aged(2018, 55).join(records.aged(2018, 65), on="subject_id", how="anti")
    day = 17532
    by_name = {(rate.measure, rate.whom): rate.simulated for rate in compared}
    ill = 100 * (here["hypertension_began"] < day).sum() / here.height
    known = 100 * (here["hypertension_found"] < day).sum() / here.height
    assert by_name["hypertension, found or not", "55-64"] == pytest.approx(ill)
    # A few are known by pressure alone, without code or drug.
    assert by_name["hypertension, registered", "55-64"] == pytest.approx(known, rel=0.04)
    assert ill > 1.4 * known
