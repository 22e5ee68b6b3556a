"""Scores: calibrated absolute risks with their reasons, of one resident now or of a whole store.

A score is for a resident at risk by the target's own rule, asked at the index time. Where the records cannot answer a
part of the rule (no birth, no blood pressure yet) the resident is scored, and `completeness` says on how little.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from meds import schema as meds

from features.engine import Engine
from features.errors import WeibingError
from features.events import EventStore, normalised
from features.kernel import Known
from features.kernel import Rows as Asked
from features.times import microseconds
from serving.drivers import COLUMN, Driver, Ints, Singles, driver_column, drivers_of, latest, rest, strongest
from serving.questions import Question, Rows, Subject, rule_features
from training.model import TIERS, Completeness, RiskModel, Tier, grade

# Where numba finds no better way to share work out, two parallel loops at once end the process.
_ALL_PROCESSORS = Lock()

# So many drivers a score go into a table; the contributions of the others are kept as their sum.
DRIVERS_IN_TABLE = 10

TABLE = pl.Schema(
    {
        "subject_id": pl.Int64(),
        "target": pl.String(),
        "index_time": pl.Datetime("us"),
        "probability": pl.Float64(),
        "lower": pl.Float64(),
        "upper": pl.Float64(),
        "tier": pl.Enum(TIERS),
        "drivers": COLUMN,
        "other": pl.Float64(),
        "base": pl.Float64(),
        "completeness": pl.Enum(["low", "moderate", "high"]),
        "model_version": pl.String(),
        "scored_at": pl.Datetime("us"),
        "synthetic": pl.Boolean(),
    }
)


@dataclass(frozen=True, slots=True)
class Score:
    """The risk of one resident for one target at one index time, and why.

    ``logit(probability)`` is `base` plus the contributions of the `drivers` plus `other`, within 1e-9.

    Attributes
    ----------
    index_time, scored_at : UTC
    probability, lower, upper : the calibrated risk, and the range that the fold models give it
    drivers : the greatest contribution first
    other : the sum of the contributions of the concepts that are not among the `drivers`
    base : the log-odds before anything is known of a resident
    synthetic : whether the model was trained on simulated records
    """

    subject_id: Subject
    target: str
    index_time: datetime
    probability: float
    lower: float
    upper: float
    tier: Tier
    drivers: tuple[Driver, ...]
    other: float
    base: float
    completeness: Completeness
    model_version: str
    scored_at: datetime
    synthetic: bool


@dataclass(frozen=True, slots=True)
class NotAtRisk:
    """Why a resident has no score for a target."""

    subject_id: Subject
    target: str
    index_time: datetime
    reason: str


def score_one(
    events: pl.DataFrame,
    index_time: datetime,
    models: Mapping[str, RiskModel],
    engine: Engine,
    now: datetime,
    *,
    most: int | None = None,
) -> list[Score | NotAtRisk]:
    """Score one resident for every model, or say why not, in the order of the models.

    Parameters
    ----------
    events : columns of the event store
        Of this resident alone; there may be none.
    index_time, now : UTC
    models : by target name
    most
        How many drivers a score names; None for all.

    Raises
    ------
    WeibingError
        If a model needs a feature that the engine's declaration lacks.
    """
    subject = int(events["subject_id"][0]) if len(events) else 0
    return Scorer(models, engine).one(events, subject, index_time, now, most=most)


def score_store(
    store: EventStore,
    index_time: datetime,
    models: Mapping[str, RiskModel],
    engine: Engine,
    now: datetime,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[pl.DataFrame]:
    """Score the residents of a store who have records before the index time and are at risk at it.

    Yields
    ------
    One frame a shard, with a row per resident and target (see ``TABLE``); memory is that of one shard.

    Raises
    ------
    WeibingError
        If a model needs a feature that the engine's declaration lacks; after the last shard, if nobody was at risk.
    """
    scorer = Scorer(models, engine)
    flow: Counter[str] = Counter()
    with store.held() as still:
        for number, shard in enumerate(still.shards, start=1):
            progress(f"scoring shard {number} of {len(still.shards)}")
            yield scorer.table(still.read(shard), index_time, now, flow)
    if not flow["scores"]:
        found = "; ".join(f"{reason} {times:,}" for reason, times in flow.items()) or "no residents"
        raise WeibingError(
            f"Nobody in {store.path} is at risk at {index_time:%Y-%m-%d}: {found}. Choose another date with --at."
        )


def write_scores(path: Path, frames: Iterable[pl.DataFrame]) -> int:
    """Write scores to a Parquet file, all of them or, if anything goes wrong before the end, none.

    Returns
    -------
    How many rows were written.

    Raises
    ------
    WeibingError
        If the file cannot be written.
    """
    try:
        with _replacing(path) as temporary, pq.ParquetWriter(temporary, TABLE.to_frame().to_arrow().schema) as writer:
            rows = 0
            for frame in frames:
                writer.write_table(frame.to_arrow().cast(writer.schema))
                rows += len(frame)
        return rows
    except OSError as error:
        raise WeibingError(f"The scores cannot be written to {path}: {error.strerror or error}.") from error


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a file beside the path, which takes its place at the end, unless something went wrong."""
    with TemporaryDirectory(prefix=".scores-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        temporary.replace(path)


class Scorer:
    """Models made ready: one profile answers all of them, and the at-risk rules of their targets.

    Parameters
    ----------
    models : by target name
    engine
        Its declaration and vocabulary fill the profiles.

    Raises
    ------
    WeibingError
        If a model needs a feature that the declaration lacks.
    """

    def __init__(self, models: Mapping[str, RiskModel], engine: Engine) -> None:
        self.engine = engine.also(rule_features(models.values()))
        self._translator = self.engine.translator
        self._concepts = [engine.vocabulary.concept(name) for name in self._translator.concepts]
        names = self.engine.profile.names
        self.questions = {name: Question.of(model, names, self._concepts) for name, model in models.items()}

    def one(
        self,
        events: pl.DataFrame,
        subject: Subject,
        index_time: datetime,
        now: datetime,
        *,
        targets: Iterable[str] | None = None,
        most: int | None = None,
    ) -> list[Score | NotAtRisk]:
        """Score one resident, on this thread; arguments as for :func:`score_one`.

        `targets` says which to answer, in which order; None for all.
        """
        index = np.array([microseconds(index_time)])
        known = self._translator.of_one(events)
        filled = self.engine.fill_one(known, int(index[0]))[np.newaxis]
        rows = self._rows([subject], [index_time], filled, known, index)
        return self._answers(rows, now, targets, most)[0]

    def many(
        self,
        events: pl.DataFrame,
        subjects: Sequence[Subject],
        index_times: Sequence[datetime],
        now: datetime,
        *,
        targets: Iterable[str] | None = None,
        most: int | None = None,
    ) -> list[list[Score | NotAtRisk]]:
        """Score many residents, each at a time of its own, on all processors.

        Parameters
        ----------
        events : columns of the event store
            Where `subject_id` is the resident's position in `subjects`.
        """
        positions = pl.Series(range(len(subjects)), dtype=pl.Int64)
        rows = self._filled(events, positions, subjects, index_times)
        return self._answers(rows, now, targets, most)

    def warm(self) -> None:
        """Run everything once that a score needs, so that no resident waits for a compiler."""
        nobody, now = normalised(pl.DataFrame(schema={"subject_id": pl.Int64})), datetime(2000, 1, 1)
        self.one(nobody, 0, now, now)
        self.many(nobody, [0, 1], [now, now], now)
        unknown = np.full((1, len(self.engine.profile)), np.nan, np.float32)
        nothing = latest(self._translator.of_one(nobody), np.zeros(1, np.int64), self._concepts)
        for question in self.questions.values():
            question.assess(Rows([0], [now], unknown, nothing, np.zeros(1, np.bool_)), np.zeros(1, np.int64))

    def table(self, events: pl.DataFrame, index_time: datetime, now: datetime, flow: Counter[str]) -> pl.DataFrame:
        """Score the residents of a shard, and count in `flow` how many, and why others not."""
        begun = events.filter((pl.col("time") < index_time) & (pl.col("code") != meds.birth_code))
        residents = begun["subject_id"].unique().sort()
        flow["without records before it"] += events["subject_id"].n_unique() - len(residents)
        rows = self._filled(events, residents, residents.to_list(), [index_time] * len(residents))
        parts = [_table(question, rows, now, flow) for question in self.questions.values()]
        return pl.concat(parts).sort("subject_id", "target")

    def _filled(
        self, events: pl.DataFrame, residents: pl.Series, subjects: Sequence[Subject], index_times: Sequence[datetime]
    ) -> Rows:
        """Fill a row for each resident, who are in ascending order."""
        index = pl.Series(index_times, dtype=pl.Datetime("us")).to_physical().to_numpy()
        with _ALL_PROCESSORS:
            known = self._translator.known(events, residents.to_numpy())
            filled = self.engine.fill(known, Asked(np.arange(len(index) + 1), index)).T
        return self._rows(subjects, index_times, filled, known, index)

    def _rows(
        self, subject: Sequence[Subject], index_time: Sequence[datetime], filled: Singles, known: Known, index: Ints
    ) -> Rows:
        born = known.concept == self._translator.concepts.index("age")
        resident = np.repeat(np.arange(len(index)), np.diff(known.starts))[born]
        later = np.zeros(len(index), np.bool_)
        later[resident[known.time[born] >= index[resident]]] = True
        return Rows(subject, index_time, filled, latest(known, index, self._concepts), later)

    def _answers(
        self, rows: Rows, now: datetime, targets: Iterable[str] | None, most: int | None
    ) -> list[list[Score | NotAtRisk]]:
        asked = self.questions if targets is None else targets
        columns = [_answer(self.questions[target], rows, now, most) for target in asked]
        return [[column[row] for column in columns] for row in range(len(rows.subject))]


def _answer(question: Question, rows: Rows, now: datetime, most: int | None) -> list[Score | NotAtRisk]:
    """Answer for every row."""
    reasons = question.reasons(rows)
    scores = _scores(question, rows, _at_risk(reasons), now, most)
    return [
        next(scores) if reason is None else NotAtRisk(subject, question.target, index_time, reason)
        for subject, index_time, reason in zip(rows.subject, rows.index_time, reasons, strict=True)
    ]


def _scores(question: Question, rows: Rows, at_risk: Ints, now: datetime, most: int | None) -> Iterator[Score]:
    """Yield a score for each row at risk."""
    if not len(at_risk):
        return
    model, assessed = question.model, question.assess(rows, at_risk)
    chosen = strongest(assessed.contributions, most)
    drivers = drivers_of(question.concepts, chosen, assessed.contributions, assessed.latest)
    other = rest(assessed.contributions, chosen).tolist()
    for number, row in enumerate(at_risk.tolist()):
        probability = float(assessed.probability[number])
        yield Score(
            subject_id=rows.subject[row],
            target=question.target,
            index_time=rows.index_time[row],
            probability=probability,
            lower=float(assessed.lower[number]),
            upper=float(assessed.upper[number]),
            tier=model.tier(probability),
            drivers=drivers[number],
            other=other[number],
            base=model.base,
            completeness=grade(float(assessed.known_gain[number])),
            model_version=model.card.version,
            scored_at=now,
            synthetic=model.card.synthetic,
        )


def _table(question: Question, rows: Rows, now: datetime, flow: Counter[str]) -> pl.DataFrame:
    """Score the rows at risk as a frame, and count in `flow` how many, and why others not."""
    reasons = question.reasons(rows)
    at_risk = _at_risk(reasons)
    flow["scores"] += len(at_risk)
    flow.update(f"{question.target}, {reason}" for reason in reasons if reason)
    if not len(at_risk):
        return pl.DataFrame(schema=TABLE)
    card, assessed = question.model.card, question.assess(rows, at_risk)
    chosen = strongest(assessed.contributions, DRIVERS_IN_TABLE)
    columns = {
        "subject_id": pl.Series(rows.subject, dtype=pl.Int64).gather(at_risk),
        "index_time": pl.Series(rows.index_time, dtype=pl.Datetime("us")).gather(at_risk),
        "probability": assessed.probability,
        "lower": assessed.lower,
        "upper": assessed.upper,
        "tier": [question.model.tier(probability) for probability in assessed.probability.tolist()],
        "drivers": driver_column(question.concepts, chosen, assessed.contributions, assessed.latest),
        "other": rest(assessed.contributions, chosen),
        "completeness": [grade(known) for known in assessed.known_gain.tolist()],
    }
    same = {
        "target": question.target,
        "base": question.model.base,
        "model_version": card.version,
        "scored_at": now,
        "synthetic": card.synthetic,
    }
    constant = [pl.lit(value, TABLE[name]).alias(name) for name, value in same.items()]
    return pl.DataFrame(columns).with_columns(constant).select(pl.col(name).cast(kind) for name, kind in TABLE.items())


def _at_risk(reasons: list[str | None]) -> Ints:
    return np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)
