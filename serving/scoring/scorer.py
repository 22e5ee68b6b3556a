"""Models made ready to score: one profile answers all of them, and the at-risk rules of their targets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from threading import Lock

import numpy as np
import polars as pl

from features.columns import Columns
from features.engine import Engine
from features.events import normalised
from features.kernel import Known
from features.kernel import Rows as Asked
from features.times import microseconds, standard_offset
from serving.drivers import Ints, Singles, choose, drivers_of, latest
from serving.questions import Question, Rows, Subject, rule_features
from serving.scoring.scores import NotAtRisk, Score
from training.model import RiskModel, grade

# Where numba finds no better way to share work out, two parallel loops at once end the process.
_ALL_PROCESSORS = Lock()


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
        self._zone = standard_offset(engine.timezone)
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
        filled = self.engine.fill_one(known, int(index[0]))[:, np.newaxis]
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
        positions = np.arange(len(subjects), dtype=np.int64)
        index = pl.Series(index_times, dtype=pl.Datetime("us")).to_physical().to_numpy()
        with _ALL_PROCESSORS:
            known = self._translator.known(events, positions)
            filled = self.engine.fill(known, Asked(np.arange(len(index) + 1), index))
        return self._answers(self._rows(subjects, index_times, filled, known, index), now, targets, most)

    def rows(self, columns: Columns, residents: Ints, index_time: datetime) -> Rows:
        """Fill a row for each of some residents of a shard, who are in ascending order, all at one time."""
        index = np.full(len(residents), microseconds(index_time))
        with _ALL_PROCESSORS:
            known = self._translator.of_columns(columns, residents)
            filled = self.engine.fill(known, Asked(np.arange(len(index) + 1), index))
        return self._rows(residents.tolist(), [index_time] * len(residents), filled, known, index)

    def warm(self) -> None:
        """Run everything once that a score needs, so that no resident waits for a compiler."""
        nobody, now = normalised(pl.DataFrame(schema={"subject_id": pl.Int64})), datetime(2000, 1, 1)
        self.one(nobody, 0, now, now)
        self.many(nobody, [0, 1], [now, now], now)
        for question in self.questions.values():
            question.model.warm()

    def _rows(
        self, subject: Sequence[Subject], index_time: Sequence[datetime], filled: Singles, known: Known, index: Ints
    ) -> Rows:
        born = known.concept == self._translator.concepts.index("age")
        resident = np.repeat(np.arange(len(index)), np.diff(known.starts))[born]
        later = np.zeros(len(index), np.bool_)
        later[resident[known.time[born] >= index[resident]]] = True
        return Rows(subject, index_time, filled, latest(known, index, self._concepts, self._zone), later)

    def _answers(
        self, rows: Rows, now: datetime, targets: Iterable[str] | None, most: int | None
    ) -> list[list[Score | NotAtRisk]]:
        asked = self.questions if targets is None else targets
        columns = [_answer(self.questions[target], rows, now, most) for target in asked]
        return [[column[row] for column in columns] for row in range(len(rows.subject))]


def _answer(question: Question, rows: Rows, now: datetime, most: int | None) -> list[Score | NotAtRisk]:
    """Answer for every row."""
    broken = question.broken(rows)
    scores = _scores(question, rows, np.flatnonzero(broken < 0), now, most)
    return [
        next(scores) if reason < 0 else NotAtRisk(subject, question.target, index_time, question.reasons[reason])
        for subject, index_time, reason in zip(rows.subject, rows.index_time, broken.tolist(), strict=True)
    ]


def _scores(question: Question, rows: Rows, at_risk: Ints, now: datetime, most: int | None) -> Iterator[Score]:
    """Yield a score for each row at risk."""
    if not len(at_risk):
        return
    model = question.model
    assessed = model.assess(question.looked_at(rows, at_risk))
    chosen = choose(assessed.contributions, most)
    known = rows.latest.of(at_risk, question.places)
    drivers = drivers_of(question.concepts, chosen, assessed.contributions, known)
    percentile = question.percentile(rows, at_risk, assessed.probability)
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
            percentile=None if np.isnan(percentile[number]) else float(percentile[number]),
            drivers=drivers[number],
            other=float(chosen.other[number]),
            base=model.base,
            completeness=grade(float(assessed.known_gain[number])),
            model_version=model.card.version,
            scored_at=now,
            synthetic=model.card.synthetic,
        )
