"""How each form of rule is worked out for a resident: since when there is a duty, and by when it is to be done."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from serving.duties.rules import REGULAR, Rule
from serving.duties.standing import HIGH_DAYS, WITHIN_DAYS, Alarm, Reading, Standing, Visit, add_months, worded_pressure

# Primary-care guideline for hypertension (China, 2020), from memory: hypertension that begins before 30 years of age.
YOUNG_YEARS, YOUNG = 30, ("hypertension before 30 years of age", "30岁前发生高血压")


class Found(NamedTuple):
    """That something is to be done by a day, and what made it so; `date` is 0 where it was never done."""

    since: int
    due: int
    date: int
    en: str = ""
    zh: str = ""
    never: bool = False


Form = Callable[[Rule, Standing], Found | None]


def regular(rule: Rule, who: Standing) -> Found | None:
    """Due so many months after the last time; where it was never done, from when the rule applies."""
    start = who.start(rule)
    if start is None or (rule.tiers and not who.tier(rule.tiers)):
        return None
    sign = who.now(rule.signs) if rule.signs else ("", "")
    if sign is None:
        return None
    done = who.done(rule)
    if rule.first_months is None:
        # Nobody knows since when the risk is so high.
        start = first = 0 if done else who.today
    else:
        first = add_months(start, rule.first_months) if rule.first_months else start
    due = max(add_months(done, rule.every_months), first) if done else first
    known = who.populations[rule.population] or start
    return Found(max(due - rule.notice_days, min(start, due)), due, done or known, *sign, never=not done)


def emergency(rule: Rule, who: Standing) -> Found | None:
    """At once, until a referral or a stay in hospital; a later value, or contact without the sign, takes it back."""
    referred = who.done(rule)
    return _alarmed(rule, [alarm for alarm in who.alarms(rule) if alarm.day > referred])


def emergency_result(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after the last emergency, until there is a contact."""
    alarms = [alarm for other in who.book.rules if other.form == "emergency" for alarm in who.alarms(other)]
    contacted = who.done(rule)
    return _alarmed(rule, [alarm for alarm in alarms if alarm.day >= contacted])


def secondary(rule: Rule, who: Standing) -> Found | None:
    """At once where a sign says that another disease may raise the pressure, until a referral since then."""
    start = who.start(rule)
    if start is None:
        return None
    adult = who.birthday(YOUNG_YEARS)
    young = [Alarm(start, *YOUNG)] if adult is not None and start < adult else []
    referred = who.done(rule)
    return _alarmed(rule, [alarm for alarm in (*young, *who.alarms(rule)) if alarm.day > referred])


def repeat(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after a value in the range of a disease, until it is measured on another day."""
    return _alarmed(rule, who.alarms(rule))


def _alarmed(rule: Rule, alarms: list[Alarm]) -> Found | None:
    if not alarms:
        return None
    day = min(alarm.day for alarm in alarms)
    of_day = [alarm for alarm in alarms if alarm.day == day]
    en = ", ".join(dict.fromkeys(alarm.en for alarm in of_day))
    zh = "、".join(dict.fromkeys(alarm.zh for alarm in of_day))
    return Found(day, day + rule.within_days, day, en, zh)


def recheck(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after the first of the high readings that nothing normal has followed."""
    if who.start(rule) is None or not who.pressure or not who.pressure[-1].high:
        return None
    referred = _referred(who)
    since_referral = [reading for reading in who.pressure if reading.day > referred]
    if not since_referral or _third_high([reading for reading in who.high if reading.day > referred]) is not None:
        return None
    last = since_referral[-1]
    first = last.day
    for reading in reversed(since_referral):
        if not reading.high or last.day - reading.day > WITHIN_DAYS:
            break
        first = reading.day
    pressure = worded_pressure(last)
    return Found(first, first + rule.within_days, last.day, pressure, pressure)


def suspected(rule: Rule, who: Standing) -> Found | None:
    """At once when the pressure was high on three days within a year, until there is a referral."""
    if who.start(rule) is None:
        return None
    referred = who.done(rule)
    third = _third_high([reading for reading in who.high if reading.day > referred])
    return _suspected(rule, third)


def suspected_result(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after that referral, or after it was to be made, until there is a contact."""
    if who.start(rule) is None:
        return None
    referred = _referred(who)
    third = _third_high([reading for reading in who.high if reading.day > referred])
    if third is None and _third_high([reading for reading in who.high if reading.day <= referred]) is not None:
        third = Reading(referred, {})
    return None if third is None or who.done(rule) > third.day else _suspected(rule, third)


def _suspected(rule: Rule, third: Reading | None) -> Found | None:
    if third is None:
        return None
    pressure = worded_pressure(third)
    return Found(third.day, third.day + rule.within_days, third.day, pressure, pressure)


def _referred(who: Standing) -> int:
    """Return the last day on which a suspicion was referred."""
    return max((who.done(rule) for rule in who.book.rules if rule.form == "suspected"), default=0)


def _third_high(high: list[Reading]) -> Reading | None:
    """Return the first of the high readings that is the third one, each on its own day, within a year."""
    for first, third in zip(high, high[HIGH_DAYS - 1 :], strict=False):
        if third.day - first.day <= WITHIN_DAYS:
            return third
    return None


def uncontrolled(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after a first visit out of control or with an adverse reaction, until there is a contact."""
    chain = who.chain(rule)
    if len(chain) != 1 or chain[-1].complication or who.done(rule) > chain[-1].day:
        return None
    return _visited(rule, chain[-1])


def uncontrolled_again(rule: Rule, who: Standing) -> Found | None:
    """At once after two such visits in a row, until there is a referral."""
    chain = who.chain(rule)
    return _visited(rule, chain[-1]) if len(chain) > 1 and who.done(rule) < chain[-1].day else None


def complication(rule: Rule, who: Standing) -> Found | None:
    """At once after a visit with a new or worse complication, until there is a referral."""
    chain = who.chain(rule)
    return _visited(rule, chain[-1]) if chain and chain[-1].complication and who.done(rule) < chain[-1].day else None


def uncontrolled_result(rule: Rule, who: Standing) -> Found | None:
    """Within so many days after a visit that calls for such a referral, until there is a contact."""
    chain = who.chain(rule)
    if not chain or (len(chain) == 1 and not chain[-1].complication) or who.done(rule) > chain[-1].day:
        return None
    return _visited(rule, chain[-1])


def _visited(rule: Rule, visit: Visit) -> Found:
    return Found(visit.day, visit.day + rule.within_days, visit.day, visit.en, visit.zh)


BY_NAME: Mapping[str, Form] = {
    REGULAR: regular,
    "emergency": emergency,
    "emergency_result": emergency_result,
    "recheck": recheck,
    "suspected": suspected,
    "suspected_result": suspected_result,
    "secondary": secondary,
    "repeat": repeat,
    "uncontrolled": uncontrolled,
    "uncontrolled_again": uncontrolled_again,
    "uncontrolled_result": uncontrolled_result,
    "complication": complication,
}
