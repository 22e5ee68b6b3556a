"""What always holds of duties, on histories that Hypothesis makes up."""

from dataclasses import astuple
from datetime import date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.events import normalised
from serving.duties import Duty, DutyRules, rulebook

RULES = {version: DutyRules(rulebook(version)) for version in ("2017", "2024", "2025")}
FIRST = datetime(2022, 1, 1)
DAYS = 900
# What happens, and between which values; days cluster, so that things meet.
HAPPENS = {
    "sbp": (110, 200),
    "dbp": (60, 120),
    "glucose_fasting": (3, 18),
    "glucose": (3, 18),
    "bmi": (20, 30),
    "follow_up_class": (1, 4),
    "adverse_drug_reaction": (0, 1),
    "heart_rate": (60, 120),
    "uacr": (1, 90),
    "egfr": (20, 120),
    "salt_intake": (1, 3),
    **dict.fromkeys(
        (
            *("hypertension", "antihypertensive", "secondary_hypertension", "diabetes", "type_1_diabetes"),
            *("insulin", "follow_up_visit", "phone_follow_up", "missed_follow_up", "home_visit", "referral"),
            *("hospital_stay", "examination", "outpatient_visit", "eye_examination", "foot_examination", "nausea"),
            *("palpitation", "pregnancy", "home_safety_visit", "MEDS_DEATH"),
        )
    ),
}
TIERS = st.dictionaries(
    st.sampled_from(["fall", "hypertension"]), st.sampled_from(["low", "moderate", "high", "very high"])
)
BOTH = ("hypertension", "diabetes")
CALLING = (
    *(
        ("sbp", 155.0),
        ("sbp", 165.0),
        ("sbp", 190.0),
        ("glucose_fasting", 9.0),
        ("glucose_fasting", 17.0),
        ("follow_up_class", 3.0),
    ),
    *(("follow_up_class", 4.0), ("nausea", None), ("palpitation", None), ("temperature", 39.5), ("sbp", 132.0)),
)
Event = tuple[datetime | None, str, float | None]


@st.composite
def happenings(draw: st.DrawFn) -> Event:
    code = draw(st.sampled_from(sorted(HAPPENS)))
    bounds = HAPPENS[code]
    value = None if bounds is None else float(draw(st.integers(*bounds)))
    time = FIRST + timedelta(days=draw(st.integers(0, DAYS)), hours=draw(st.sampled_from([0, 2, 15, 16, 20])))
    return (None if draw(st.integers(0, 15)) == 0 else time), code, value


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Draw somebody of some age with some diseases, to whom things happen, and lately some that call for something."""
    births = st.integers(1930, 2000).map(lambda year: [(datetime(year, 5, 17), "MEDS_BIRTH", None)])
    born = draw(st.one_of(births, births, births, st.just([])))
    known = [(FIRST, each, None) for each in draw(st.sampled_from([(), (), ("hypertension",), ("diabetes",), BOTH]))]
    lately = draw(st.lists(st.tuples(st.integers(DAYS - 30, DAYS), st.sampled_from(CALLING)), max_size=8))
    calling = [(FIRST + timedelta(days=day), *what) for day, what in lately]
    return [*born, *known, *calling, *draw(st.lists(happenings(), max_size=8))]


def events_of(history: list[Event]) -> pl.DataFrame:
    schema = {"time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    rows = pl.DataFrame(history, schema=schema, orient="row")
    return normalised(rows.with_columns(subject_id=pl.lit(1, pl.Int64)))


DAY = st.integers(0, DAYS + 800).map(lambda days: FIRST.date() + timedelta(days=days))


def midnight(day: date) -> datetime:
    """Return when a day begins in Shanghai, in UTC."""
    return datetime(day.year, day.month, day.day) - timedelta(hours=8)


@settings(max_examples=150)
@given(history=histories(), later=st.lists(happenings(), max_size=8), day=DAY, tiers=TIERS)
def test_nothing_at_or_after_the_day_matters(history, later, day, tiers):
    rules = RULES["2017"]
    at = midnight(day)
    before = [each for each in history if each[0] is None or each[0] < at]
    after = [(at + timedelta(days=number % 3), code, value) for number, (_, code, value) in enumerate(later)]
    found = rules.due(events_of(before), day, tiers)
    assert rules.due(events_of(history), day, tiers) == found
    assert rules.due(events_of(before + after), day, tiers) == found
    assert rules.due(events_of(history), at, tiers) == found, "a day is the moment with which it begins"


@settings(max_examples=150)
@given(history=histories(), day=DAY, tiers=TIERS, data=st.data())
def test_the_order_of_events_does_not_matter(history, day, tiers, data):
    shuffled = data.draw(st.permutations(history))
    rules = RULES["2017"]
    assert rules.due(events_of(shuffled), day, tiers) == rules.due(events_of(history), day, tiers)


@settings(max_examples=200)
@given(history=histories(), version=st.sampled_from(sorted(RULES)), days=st.integers(1, 1500), tiers=TIERS)
def test_more_time_without_a_contact_never_makes_a_due_duty_disappear(history, version, days, tiers):
    day = FIRST.date() + timedelta(days=DAYS + 2)
    rules, read = RULES[version], RULES[version].history(events_of(history))
    sooner = {each.kind: each for each in rules.due(read, day, tiers)}
    later = {each.kind: each for each in rules.due(read, day + timedelta(days=days), tiers)}
    assert sooner.keys() <= later.keys()
    for kind, duty in sooner.items():
        assert later[kind].urgent == duty.urgent
        assert {duty.rule, *duty.also} <= {later[kind].rule, *later[kind].also}


@settings(max_examples=100)
@given(history=histories(), version=st.sampled_from(sorted(RULES)), day=DAY, tiers=TIERS)
def test_duties_are_the_same_each_time_and_hold_together(history, version, day, tiers):
    events = events_of(history)
    found = RULES[version].due(events, day, tiers)
    assert found == RULES[version].due(events, day, dict(reversed(tiers.items())))
    assert [each.kind for each in found] == list(dict.fromkeys(each.kind for each in found))
    assert [(not each.urgent, each.due) for each in found] == sorted((not each.urgent, each.due) for each in found)
    for duty in found:
        holds_together(duty, day)


def holds_together(duty: Duty, day: date) -> None:
    assert duty.since <= day
    assert duty.overdue == (duty.due < day)
    assert all(each is not None and each != "" for each in astuple(duty))
    assert "{" not in duty.reason_en + duty.reason_zh
    assert duty.reason_en.isascii()


@pytest.mark.parametrize("version", sorted(RULES))
def test_what_the_properties_draw_meets_most_rules(version):
    """So that the properties above are not about empty lists."""
    met: set[str] = set()

    @settings(max_examples=300, database=None)
    @given(history=histories(), tiers=TIERS)
    def meet(history, tiers):
        for duty in RULES[version].due(events_of(history), FIRST.date() + timedelta(days=DAYS + 2), tiers):
            met.update((duty.rule, *duty.also))

    meet()
    missing = {rule.rule for rule in rulebook(version).rules} - met
    assert len(missing) <= 3, missing
