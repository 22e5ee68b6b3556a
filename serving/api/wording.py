"""Scores and duties in words, in English and Chinese, as other systems show them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from features.cohort import Target
from features.times import zone
from serving.api.assessments import Due
from serving.drivers import Driver
from serving.scoring import Score

Language = Literal["zh", "en"]

SENTENCES: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "a": "years",
        "yes": "yes",
        "no": "no",
        "comma": ", ",
        "semicolon": "; ",
        "value": "{label} {value}",
        "dated": "{told} ({date})",
        "raises": "Raises the risk: {drivers}.",
        "lowers": "Lowers the risk: {drivers}.",
        "risk": "{tier} risk of {target} within {horizon}: {percent}",
        "range": "The models of the folds say {lower} to {upper}.",
        "percentile": "Higher than that of {percentile} % of people of the same age and sex.",
        "completeness": "How much of what the model looks at is known: {completeness}.",
        "model": "Model of {target}, version {version}.",
        "synthetic": "The model was trained on simulated records: not for care.",
        "decimal": "probabilityDecimal is a probability from 0 to 1, not a percentage.",
        "due": "due {date}: {reason}",
        "overdue": "overdue since {date}: {reason}",
        "urgent": "at once: {reason}",
        "duties": "{number} due: {reason}",
        "one duty": "Due: {reason}",
        "urgent duties": "At once: {reason}",
        "plan": "Plan: {reason}",
        "more": "More of this resident",
        "low": "Low",
        "moderate": "Moderate",
        "high": "High",
        "very high": "Very high",
        "y": "{number} years",
        "mo": "{number} months",
        "w": "{number} weeks",
        "d": "{number} days",
        "low completeness": "little",
        "moderate completeness": "about half",
        "high completeness": "most",
    },
    "zh": {
        "a": "岁",
        "yes": "是",
        "no": "否",
        "comma": "、",
        "semicolon": "；",
        "value": "{label} {value}",
        "dated": "{told}（{date}）",
        "raises": "使风险升高：{drivers}。",
        "lowers": "使风险降低：{drivers}。",
        "risk": "{horizon}内{target}风险{tier}：{percent}",
        "range": "各折模型给出 {lower} 至 {upper}。",
        "percentile": "高于同年龄同性别人群的 {percentile} %。",
        "completeness": "模型所需资料已知程度：{completeness}。",
        "model": "{target}模型，版本 {version}。",
        "synthetic": "该模型用模拟记录训练，不得用于诊疗。",
        "decimal": "probabilityDecimal 为 0 至 1 的概率，不是百分数。",
        "due": "应于 {date} 前：{reason}",
        "overdue": "自 {date} 逾期：{reason}",
        "urgent": "立即：{reason}",
        "duties": "{number} 项应做：{reason}",
        "one duty": "应做：{reason}",
        "urgent duties": "立即：{reason}",
        "plan": "安排：{reason}",
        "more": "查看该居民",
        "low": "低",
        "moderate": "中等",
        "high": "高",
        "very high": "极高",
        "y": "{number} 年",
        "mo": "{number} 个月",
        "w": "{number} 周",
        "d": "{number} 天",
        "low completeness": "少",
        "moderate completeness": "约一半",
        "high completeness": "大部分",
    },
}


def wanted(accepted: str, default: Language) -> Language:
    """Return the language that a header ``Accept-Language`` asks for first among those spoken here."""
    for part in accepted.lower().split(","):
        tag = part.partition(";")[0].strip().partition("-")[0]
        if tag in ("zh", "en"):
            return "zh" if tag == "zh" else "en"
    return default


def shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1].rstrip()}…"


class Words:
    """Says scores and duties in one language, with days of a zone."""

    def __init__(self, language: Language, timezone: str) -> None:
        self.language = language
        self.sentences = SENTENCES[language]
        self._zone = zone(timezone)

    def say(self, sentence: str, **parts: object) -> str:
        """Return one of the ``SENTENCES`` with its parts filled in."""
        return self.sentences[sentence].format(**parts)

    def target(self, target: Target) -> str:
        """Return what a target is called."""
        return target.label_zh if self.language == "zh" else target.label_en

    def horizon(self, target: Target) -> str:
        """Return how far a target looks ahead."""
        number, unit = target.horizon.rstrip("abcdefghijklmnopqrstuvwxyz"), target.horizon.lstrip("0123456789. ")
        return self.say(unit, number=number.strip()) if unit in self.sentences else target.horizon

    def risk(self, score: Score, target: Target) -> str:
        """Return a risk as one line."""
        return self.say(
            "risk",
            tier=self.say(score.tier),
            target=self.target(target),
            horizon=self.horizon(target),
            percent=percent(score.probability),
        )

    def model(self, score: Score, target: Target) -> str:
        """Return which model made a score."""
        return self.say("model", target=self.target(target), version=score.model_version)

    def driver(self, driver: Driver) -> str:
        """Return a driver with its value and its date, where there are any."""
        label = driver.label_zh if self.language == "zh" else driver.label_en
        told = label if driver.value is None else self.say("value", label=label, value=self._value(driver))
        return told if driver.date is None else self.say("dated", told=told, date=self.day(driver.date))

    def day(self, moment: datetime) -> str:
        """Return the day of a UTC moment in the county's zone."""
        return moment.replace(tzinfo=UTC).astimezone(self._zone).date().isoformat()

    def rationale(self, drivers: Sequence[Driver]) -> str:
        """Return what raises a risk and what lowers it."""
        raising = [self.driver(each) for each in drivers if each.contribution > 0]
        lowering = [self.driver(each) for each in drivers if each.contribution < 0]
        told = (("raises", raising), ("lowers", lowering))
        return " ".join(self.say(name, drivers=self._listed(those, "semicolon")) for name, those in told if those)

    def remarks(self, score: Score) -> list[str]:
        """Return what has to be known of a score besides its drivers."""
        said = [self.say("range", lower=percent(score.lower), upper=percent(score.upper))]
        if score.percentile is not None:
            said.append(self.say("percentile", percentile=round(score.percentile)))
        said.append(self.say("completeness", completeness=self.say(f"{score.completeness} completeness")))
        return [*said, self.say("synthetic")] if score.synthetic else said

    def reason(self, duty: Due) -> str:
        """Return why something is due."""
        return duty.reason_zh if self.language == "zh" else duty.reason_en

    def duty(self, duty: Due) -> str:
        """Return what is due, when, and why."""
        name = "urgent" if duty.urgent else "overdue" if duty.overdue else "due"
        return self.say(name, date=duty.due.isoformat(), reason=self.reason(duty))

    def duties(self, duties: Iterable[Due]) -> str:
        """Return all that is due."""
        return self._listed([self.duty(each) for each in duties], "semicolon")

    def _listed(self, told: Sequence[str], separator: str) -> str:
        return self.say(separator).join(told)

    def _value(self, driver: Driver) -> str:
        if not driver.unit and driver.value in (0.0, 1.0):
            return self.say("yes" if driver.value else "no")
        unit = self.sentences.get(driver.unit, driver.unit) if driver.unit == "a" else driver.unit
        return f"{driver.value:g} {unit}".rstrip()


def percent(probability: float) -> str:
    """Return a probability as a percentage that a person reads: one decimal below ten."""
    hundredths = 100 * probability
    return f"{hundredths:.1f} %" if hundredths < 9.95 else f"{hundredths:.0f} %"
