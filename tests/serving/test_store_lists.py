"""A panel's list: filtered, sorted and cut into pages exactly; on both databases."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import WeibingError
from serving.store.database import Database
from serving.store.lists import Driver, Listed, ListQuery, page
from serving.store.panels import Panels
from serving.store.tables import METADATA, residents
from tests.serving.furnished import DUTY, NOW, furnish, night_of, score, score_of

TIERS = ("low", "moderate", "high", "very high")


@dataclass(frozen=True)
class Drawn:
    """A resident as a test draws one: a row of the list is what plain Python makes of it."""

    here: bool
    opted_out: bool
    probability: float | None
    previous: float | None
    percentile: float | None
    tier: str
    due: tuple[date, ...]
    urgent: bool
    versions: int


# Few values, so that many rows are equal in what they are sorted by.
shares = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0])
days = st.sampled_from([date(2026, 2, 1), date(2026, 3, 1), date(2026, 3, 2), date(2027, 1, 1)])
residents_drawn = st.builds(
    Drawn,
    here=st.sampled_from([True, True, True, False]),
    opted_out=st.sampled_from([False, False, False, True]),
    probability=st.sampled_from([0.1, 0.25, 1 / 3, 0.5, None]),
    previous=st.none() | shares,
    percentile=st.none() | shares.map(lambda share: 100 * share),
    tier=st.sampled_from(TIERS),
    due=st.lists(days, max_size=2).map(tuple),
    urgent=st.booleans(),
    versions=st.integers(0, 2),
)
queries = st.builds(
    ListQuery,
    panel_id=st.just(1),
    target=st.just("fall"),
    tiers=st.lists(st.sampled_from(TIERS), max_size=2, unique=True),
    due_by=st.none() | days,
    sort=st.sampled_from(["risk", "change", "percentile", "due"]),
    descending=st.booleans(),
    limit=st.integers(1, 5),
)


def keep(database: Database, drawn: list[Drawn]) -> None:
    """Put drawn residents, whose numbers in the database are those in the store, into an empty database."""
    with database.writing() as connection:
        for table in reversed(METADATA.sorted_tables):
            if not table.name.startswith("audit"):
                connection.execute(table.delete())
        for table, rows in rows_of(drawn).items():
            if rows:
                connection.execute(METADATA.tables[table].insert(), rows)


def rows_of(drawn: list[Drawn]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {
        "residents": [], "panels": [{"id": 1, "name": "one"}, {"id": 2, "name": "other"}], "panel_residents": [],
        "runs": [night_of(1), night_of(2), night_of(3, complete=False)], "scores": [], "duties": [],
    }  # fmt: skip
    for number, each in enumerate(drawn, 1):
        opted_out = NOW if each.opted_out else None
        found["residents"].append({"id": number, "subject_id": number, "opted_out_at": opted_out})
        panel = 1 if each.here else 2
        found["panel_residents"].append({"panel_id": panel, "resident_id": number, "since": datetime(2026, 1, 1)})
        told = {"tier": each.tier, "percentile": each.percentile, "previous": each.previous}
        found["scores"].append(score_of(number, run=2, **told, probability=each.probability))
        # An older version, one of an unfinished run, and one of another target, which nobody is to see.
        found["scores"] += [score_of(number, run=1, **told, probability=0.99)] * (each.versions > 0)
        found["scores"] += [score_of(number, run=3, **told, probability=0.98)] * (each.versions > 1)
        found["scores"].append(score_of(number, "hypertension", run=2, probability=0.97))
        for position, day in enumerate(each.due):
            duty = asdict(replace(DUTY, due=day, urgent=each.urgent))
            found["duties"].append(duty | {"resident_id": number, "position": position, "as_of": NOW.date()})
    return found


def oracle(drawn: list[Drawn], query: ListQuery) -> list[int]:
    """Return who is in a list, in its order."""
    rows = []
    for number, each in enumerate(drawn, 1):
        if (
            not each.here
            or each.opted_out
            or each.probability is None
            or (query.tiers and each.tier not in query.tiers)
        ):
            continue
        due = min(each.due, default=None)
        if query.due_by is not None and (due is None or due > query.due_by):
            continue
        change = None if each.previous is None else each.probability - each.previous
        value = {"risk": each.probability, "change": change, "percentile": each.percentile, "due": due}[query.sort]
        rows.append((number, value))
    known = [row for row in rows if row[1] is not None]
    known.sort(key=lambda row: row[1], reverse=query.descending)
    return [number for number, _ in known] + [number for number, value in rows if value is None]


def pages(database: Database, query: ListQuery) -> Iterator[tuple[Listed, ...]]:
    for _ in count():
        found = page(database, query, NOW)
        yield found.rows
        if found.after is None:
            return
        query = replace(query, after=found.after)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(residents_drawn, min_size=1, max_size=14), asked=st.lists(queries, min_size=4, max_size=10))
def test_a_list_is_filtered_sorted_and_cut_into_pages_as_plain_python_does(database, drawn, asked):
    keep(database, drawn)
    for query in asked:
        found = list(pages(database, query))
        # Python sorts stably in both directions: equal rows stay in the order of their numbers.
        assert [row.subject_id for rows in found for row in rows] == oracle(drawn, query)
        assert all(len(rows) == query.limit for rows in found[:-1])
        for row in (row for rows in found for row in rows):
            of = drawn[row.subject_id - 1]
            assert (row.due, row.urgent) == (min(of.due, default=None), of.urgent and bool(of.due))
            assert (row.probability, row.previous, row.tier) == (of.probability, of.previous, of.tier)


def test_a_row_tells_the_resident_the_score_and_the_first_drivers(database):
    furnish(database)
    rows = page(database, ListQuery(Panels(database).all()[0].id, "fall"), NOW).rows
    assert [row.subject_id for row in rows] == [1, 2]
    assert rows[0] == Listed(
        1, "柿西", "male", 1950, "fall", NOW, 0.25, 0.1, 0.5, "high", 90.0, 0.2, "high", "7", True, NOW,
        DUTY.due, False,
        (Driver("sbp", 0.5, None, rows[0].drivers[0].value, "mm[Hg]", NOW),
         Driver("跌倒", 0.5, None, rows[0].drivers[0].value, "mm[Hg]", NOW)),
    )  # fmt: skip
    assert rows[0].drivers[0].value == pytest.approx(5.3)


def test_who_is_not_under_contract_any_more_is_not_listed(database):
    furnish(database)
    query = ListQuery(Panels(database).all()[0].id, "fall")
    Panels(database).leave(2, NOW)
    assert [row.subject_id for row in page(database, query, NOW).rows] == [1]
    assert page(database, query, datetime(2025, 1, 1)).rows == ()
    assert page(database, replace(query, panel_id=99), NOW).rows == ()


def test_a_page_goes_on_where_the_one_before_ended_although_rows_come_and_go(database):
    drawn = [Drawn(True, False, risk, None, None, "low", (), False, 0) for risk in (0.5, 0.4, 0.3, 0.2)]
    keep(database, drawn)
    query = ListQuery(1, "fall", limit=2)
    first = page(database, query, NOW)
    Panels(database).leave(2, NOW)
    with database.writing() as connection:
        connection.execute(residents.insert().values(id=9, subject_id=9))
    Panels(database).sign(1, [9], datetime(2026, 1, 1))
    score(database, 9, run=2, probability=0.9)
    second = page(database, replace(query, after=first.after), NOW)
    assert [[row.subject_id for row in each.rows] for each in (first, second)] == [[1, 2], [3, 4]]
    assert second.after is None


@pytest.mark.parametrize(
    "after", ["", "nonsense", "é", "W10", "WyJyaXNrIixmYWxzZSwwLjUsMV0", "WyJyaXNrIix0cnVlLHt9LDFd"]
)
def test_a_place_that_is_none_of_the_list_is_refused(database, after):
    with pytest.raises(WeibingError, match="That is no place in this list"):
        page(database, ListQuery(1, "fall", after=after), NOW)
