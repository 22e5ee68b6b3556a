"""Where a resident stands before a moment: age, known diseases, readings, contacts.

Days are numbers: 1 is the first day of the year 1.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import takewhile
from math import fsum, inf, isnan
from typing import NamedTuple

from serving.duties.history import History, Seen
from serving.duties.rules import DISEASES, Rule, Rulebook, Sign

# What is asked besides what the rules name.
ASKED = frozenset(
    {
        *("age", "female", "death", "observation_end", "hypertension", "secondary_hypertension"),
        *("hypertension_coded", "hypertension_treated", "diabetes_coded", "diabetes_treated", "diabetes_found"),
        *("type_1_diabetes", "adverse_drug_reaction", "follow_up_class", "missed_follow_up", "phone_follow_up"),
    }
)
# A later value of any of a group says how it is now.
SAME = tuple(
    frozenset(group)
    for group in (
        {"glucose", "glucose_fasting", "glucose_2h", "home_glucose"},
        {"heart_rate", "pulse"},
    )
)
SAME_AS = {concept: group for group in SAME for concept in group}
# How long pregnancy and lactation count after they are recorded.
BESIDE_DAYS = 280
# National Basic Public Health Service Specification, third edition (2017): the result of a follow-up.
CONTROLLED, UNCONTROLLED, ADVERSE, COMPLICATION = 1, 2, 3, 4
# Chinese guidelines for the management of hypertension, 2018 revision, unchanged 2024: on three days within a year.
HIGH_SBP, HIGH_DBP, HIGH_DAYS, WITHIN_DAYS = 140, 90, 3, 365
LAST_YEAR = date.max.year
NOTHING: Mapping[str, float] = {}


class Reading(NamedTuple):
    """The mean values of a day, by concept."""

    day: int
    values: Mapping[str, float]

    @property
    def high(self) -> bool:
        """Whether the pressure is high by the limits of diagnosis."""
        return self.values.get("sbp", 0) >= HIGH_SBP or self.values.get("dbp", 0) >= HIGH_DBP


class Visit(NamedTuple):
    """A day on which it is known whether a disease was under control, what says so, and what was measured."""

    day: int
    bad: bool
    complication: bool
    en: str
    zh: str
    values: Mapping[str, float] = NOTHING


class Alarm(NamedTuple):
    """A sign of an emergency, and when it was last seen."""

    day: int
    en: str
    zh: str


def add_months(day: int, months: int) -> int:
    """Return the same day of the month some months later, or the month's last."""
    then = date.fromordinal(day)
    year, month = divmod(then.year * 12 + then.month - 1 + months, 12)
    if year > LAST_YEAR:
        return date.max.toordinal()
    first = date(year, month + 1, 1).toordinal()
    if then.day <= 28:
        return first + then.day - 1
    last = 31 if month == 11 else (date(year, month + 2, 1).toordinal() - first)
    return first + min(then.day, last) - 1


def shown(value: float) -> str:
    """Write a value with two decimals at most."""
    return f"{round(value, 2):.10g}"


class Standing:
    """What was known of a resident before a moment.

    Parameters
    ----------
    moment : microseconds since 1970 (UTC)
        Nothing at it or after it is seen.
    today
        Its day in the county.
    tiers : by target
    """

    def __init__(self, history: History, moment: int, today: int, book: Rulebook, tiers: Mapping[str, str]) -> None:
        self.seen = history.before(moment)
        self.always = history.always
        self.today = today
        self.book = book
        self.tiers = tiers
        births = self.seen.get("age")
        self._birth = births[-1][1] if births else None
        self._birthdays: dict[float, int] = {}
        self._chains: dict[str, list[Visit]] = {}
        self._done: dict[tuple[tuple[str, ...], bool], int] = {}
        self._alarms: dict[str, list[Alarm]] = {}

    @property
    def here(self) -> bool:
        """Whether the resident lives, and here."""
        return not (self.knows("death") or self.knows("observation_end"))

    def knows(self, concept: str) -> bool:
        """Whether a concept was ever recorded."""
        return concept in self.seen or concept in self.always

    def last(self, concept: str) -> int:
        """Return the last day of a concept, 0 where it has none."""
        events = self.seen.get(concept)
        return events[-1][1] if events else 0

    def birthday(self, years: float) -> int | None:
        """Return the day on which an age is reached, None where the birth is unknown."""
        if years not in self._birthdays and self._birth is not None:
            self._birthdays[years] = add_months(self._birth, round(years * 12))
        return self._birthdays.get(years)

    @cached_property
    def begin(self) -> int:
        """The first day of the records; today where nothing has a date."""
        days = (events[0][1] for concept, events in self.seen.items() if concept != "age")
        return min(days, default=self.today)

    @cached_property
    def populations(self) -> Mapping[str, int | None]:
        """Since when a resident belongs to each population, None where not."""
        secondary = self.knows("secondary_hypertension") and not self.knows("hypertension")
        hypertension = self._since("hypertension_coded", "hypertension_treated")
        diabetes, found = self._since("diabetes_coded", "diabetes_treated"), self._since("diabetes_found")
        return {
            "everyone": self.begin,
            "unmanaged": self.begin if hypertension is None else None,
            "hypertension": None if secondary else hypertension,
            "diabetes": None if self.knows("type_1_diabetes") else diabetes,
            "any_diabetes": found,
            "no_diabetes": self.begin if found is None else None,
        }

    def _since(self, *concepts: str) -> int | None:
        if any(concept in self.always for concept in concepts):
            return self.begin
        return min((self.seen[concept][0][1] for concept in concepts if concept in self.seen), default=None)

    def start(self, rule: Rule) -> int | None:
        """Return since when a rule is for this resident, None where it is not, or nobody knows."""
        start = self.populations[rule.population]
        if start is None or not rule.from_age:
            return start
        birthday = self.birthday(rule.from_age)
        return None if birthday is None or birthday > self.today else max(start, birthday)

    def tier(self, tiers: Iterable[tuple[str, str]]) -> bool:
        """Whether the risk of a target is of one of the tiers."""
        return any(self.tiers.get(target) == tier for target, tier in tiers)

    def done(self, rule: Rule) -> int:
        """Return the last day on which what a rule asks for was done, 0 where it never was."""
        # Several rules are closed by the same.
        key = rule.closed_by, rule.all_of
        if key not in self._done:
            days = [self._closing(concept, rule) for concept in rule.closed_by]
            self._done[key] = (min if rule.all_of else max)(days, default=0)
        return self._done[key]

    def _closing(self, concept: str, rule: Rule) -> int:
        if concept != "follow_up_visit":
            return self.last(concept)
        return self._any_visit if "phone_follow_up" in rule.closed_by else self._face_to_face

    @cached_property
    def _any_visit(self) -> int:
        return self._visit_without("missed_follow_up")

    @cached_property
    def _face_to_face(self) -> int:
        return self._visit_without("missed_follow_up", "phone_follow_up")

    def _visit_without(self, *others: str) -> int:
        """Return the last day of a follow-up that was none of the others."""
        days = {day for other in others for _, day, _ in self.seen.get(other, ())}
        visits = self.seen.get("follow_up_visit", ())
        return next((day for _, day, _ in reversed(visits) if day not in days), 0)

    def now(self, signs: Iterable[Sign]) -> tuple[str, str] | None:
        """Return the first sign that the latest values show, in both languages."""
        for sign in signs:
            if sign.female is not None and self._female is not sign.female:
                continue
            if sign.concept == "age":
                birthday = self.birthday(sign.at_least)
                if birthday is not None and birthday <= self.today:
                    return _worded(sign, sign.at_least)
                continue
            value = self._latest(sign)
            if value is not None:
                return _worded(sign, value)
        return None

    @cached_property
    def _female(self) -> bool | None:
        if "female" in self.always:
            return self.always["female"] > 0.5
        events = self.seen.get("female")
        return events[-1][2] > 0.5 if events else None

    def _latest(self, sign: Sign) -> float | None:
        """Return the worst value of the last day that shows a sign, NaN where it needs none; None where none does."""
        events = self.seen.get(sign.concept)
        if not events:
            value = self.always.get(sign.concept)
            return value if value is not None and sign.holds(value) else None
        return _worst(sign, _of_last_day(events))

    def alarms(self, rule: Rule) -> list[Alarm]:
        """Return the signs of a rule that nothing later takes back; none where it is not for this resident."""
        if rule.rule not in self._alarms:
            signs = () if self.start(rule) is None else rule.signs
            alarms = (self._alarm(sign) for sign in signs if sign.concept in self.seen)
            self._alarms[rule.rule] = [alarm for alarm in alarms if alarm is not None]
        return self._alarms[rule.rule]

    def _alarm(self, sign: Sign) -> Alarm | None:
        events = self.seen[sign.concept]
        value = _worst(sign, _of_last_day(events))
        if value is None:
            return None
        day = events[-1][1]
        if sign.of_number:
            group = SAME_AS.get(sign.concept)
            if group is not None and any(self.last(concept) > day for concept in group):
                return None
        elif self.contacted > day:
            return None
        if sign.beside and not self._beside(sign, day):
            return None
        return Alarm(day, *_worded(sign, value))

    def _beside(self, sign: Sign, day: int) -> bool:
        return any(
            day - BESIDE_DAYS < other <= day for concept in sign.beside for _, other, _ in self.seen.get(concept, ())
        )

    @cached_property
    def contacted(self) -> int:
        """The last day on which somebody saw or spoke to the resident, 0 where none is known."""
        return max((self.done(rule) for rule in self.book.rules if rule.form == "emergency_result"), default=0)

    @cached_property
    def pressure(self) -> list[Reading]:
        """The blood pressure day by day."""
        days = self._by_day("sbp", "dbp")
        return [_mean(day, days[day]) for day in sorted(days)]

    @cached_property
    def high(self) -> list[Reading]:
        """The days on which the blood pressure was high."""
        return [reading for reading in self.pressure if reading.high]

    def _by_day(self, *concepts: str) -> dict[int, dict[str, list[float]]]:
        """Return the values of each day on which one of the concepts was measured."""
        days: dict[int, dict[str, list[float]]] = {}
        for concept in concepts:
            for _, day, value in self.seen.get(concept, ()):
                days.setdefault(day, {}).setdefault(concept, []).append(value)
        return days

    def chain(self, rule: Rule) -> list[Visit]:
        """Return the visits since a rule's disease was last under control, or since enrolment; none where it is."""
        if self.start(rule) is None:
            return []
        if rule.population not in self._chains:
            visits = takewhile(lambda visit: visit.bad, self.visits_back(rule.population))
            self._chains[rule.population] = list(visits)[::-1]
        return self._chains[rule.population]

    def visits_back(self, disease: str) -> Iterator[Visit]:
        """Yield the days of which it is known whether a disease was under control, from the last one to enrolment."""
        start = self.populations[disease] or 0
        adverse = {day for _, day, value in self.seen.get("adverse_drug_reaction", ()) if value > 0}
        # Of several classes of a day the worst.
        classes = sorted((value, day) for _, day, value in self.seen.get("follow_up_class", ()))
        told = {day: value for value, day in classes}
        values = self._by_day(*DISEASES[disease])
        for day in sorted({*adverse, *told, *values}, reverse=True):
            if day < start:
                return
            reading = _mean(day, values[day]) if day in values else None
            visit = self._visit(disease, day, reading, told.get(day, 0), day in adverse)
            if visit is not None:
                yield visit

    def _visit(self, disease: str, day: int, reading: Reading | None, told: float, adverse: bool) -> Visit | None:
        """Return what a day says of a disease: the doctor's complication or adverse reaction, the values, the class."""
        values = NOTHING if reading is None else reading.values
        if told == COMPLICATION:
            return Visit(day, True, True, "new or worse complication", "新的或加重的并发症", values)
        if adverse or told == ADVERSE:
            return Visit(day, True, False, "adverse drug reaction", "药物不良反应", values)
        if reading is not None:
            limits = self._limits(disease, day)
            en, zh = _measured(disease, reading)
            if any(values.get(concept, -inf) >= below for concept, below in limits):
                return Visit(day, True, False, en, zh, values)
            if all(concept in values for concept, _ in limits):
                return Visit(day, False, False, en, zh, values)
        return self._classed(disease, day, told, values)

    def _classed(self, disease: str, day: int, told: float, values: Mapping[str, float]) -> Visit | None:
        """Return what the doctor's class alone says; of somebody with both diseases it does not say of which."""
        both = all(self.populations[each] is not None for each in DISEASES)
        if both or told not in {CONTROLLED, UNCONTROLLED}:
            return None
        if told == CONTROLLED:
            return Visit(day, False, False, "classed as controlled", "随访分类为控制满意", values)
        return Visit(day, True, False, "classed as not controlled", "随访分类为控制不满意", values)

    def _limits(self, disease: str, day: int) -> list[tuple[str, float]]:
        """Return the limits of control at the age of a day; an unknown age counts as young."""
        return [
            (limit.concept, limit.below)
            for limit in self.book.limits_of[disease]
            if self._reached(limit.from_age, day) and not self._reached(limit.below_age, day)
        ]

    def _reached(self, years: float, day: int) -> bool:
        if years in {0, inf}:
            return years == 0
        birthday = self.birthday(years)
        return birthday is not None and birthday <= day


def _mean(day: int, values: Mapping[str, Sequence[float]]) -> Reading:
    return Reading(day, {concept: fsum(each) / len(each) for concept, each in values.items()})


def _of_last_day(events: Sequence[Seen]) -> list[float]:
    day = events[-1][1]
    if len(events) == 1 or events[-2][1] != day:
        return [events[-1][2]]
    return [value for _, that, value in events if that == day]


def _worst(sign: Sign, values: Iterable[float]) -> float | None:
    """Return the value that shows a sign most, None where none does."""
    held = [value for value in values if sign.holds(value)]
    numbers = [value for value in held if not isnan(value)]
    if not numbers:
        return held[0] if held else None
    return min(numbers) if sign.at_most < inf else max(numbers)


def _worded(sign: Sign, value: float) -> tuple[str, str]:
    number = shown(value)
    return sign.label_en.format(value=number), sign.label_zh.format(value=number)


def worded_pressure(reading: Reading) -> str:
    """Write a pressure as 152/88, with - for what was not measured."""
    return "/".join(shown(reading.values[name]) if name in reading.values else "-" for name in ("sbp", "dbp"))


def _measured(disease: str, reading: Reading) -> tuple[str, str]:
    if disease == "hypertension":
        pressure = worded_pressure(reading)
        return f"blood pressure {pressure}", f"血压 {pressure}"
    glucose = shown(reading.values["glucose_fasting"])
    return f"fasting glucose {glucose}", f"空腹血糖 {glucose}"
