"""Models made ready to score: one profile answers all of them, and the at-risk rules of their targets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from math import isnan
from threading import Lock

import numpy as np
import polars as pl

from features.columns import Columns, columns_of
from features.engine import Engine
from features.events import normalised
from features.kernel import Known
from features.kernel import Rows as Asked
from features.times import microseconds, standard_offset
from serving.drivers import Ints, Kinds, Singles, choose, drivers_of, latest
from serving.questions import Question, Rows, Subject, rule_features
from serving.scoring.scores import NotAtRisk, Score
from training.model import RiskModel, grade

# Where numba finds no better way to share work out, two parallel loops at once end the process.
ALL_PROCESSORS = Lock()


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
        self.translator = self.engine.translator
        self._zone = standard_offset(engine.timezone)
        concepts = [engine.vocabulary.concept(name) for name in self.translator.concepts]
        self._kinds = Kinds.of(concepts)
        names = self.engine.profile.names
        self.questions = {name: Question.of(model, names, concepts) for name, model in models.items()}

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
        return self.of_known(self.translator.of_one(events), subject, index_time, now, targets=targets, most=most)

    def of_known(
        self,
        known: Known,
        subject: Subject,
        index_time: datetime,
        now: datetime,
        *,
        targets: Iterable[str] | None = None,
        most: int | None = None,
    ) -> list[Score | NotAtRisk]:
        """Score one resident, given the usable events that :attr:`translator` returns; as :meth:`one`."""
        index = np.array([microseconds(index_time)])
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
        return self.of_columns(columns_of(events), subjects, index_times, now, targets=targets, most=most)

    def of_columns(
        self,
        columns: Columns,
        subjects: Sequence[Subject],
        index_times: Sequence[datetime],
        now: datetime,
        *,
        targets: Iterable[str] | None = None,
        most: int | None = None,
    ) -> list[list[Score | NotAtRisk]]:
        """Score many residents, given their events as columns; as :meth:`many`."""
        positions = np.arange(len(subjects), dtype=np.int64)
        index = np.array(list(map(microseconds, index_times)), np.int64)
        with ALL_PROCESSORS:
            known = self.translator.of_columns(columns, positions)
            filled = self.engine.fill(known, Asked(np.arange(len(index) + 1), index))
        return self._answers(self._rows(subjects, index_times, filled, known, index), now, targets, most)

    def rows(self, columns: Columns, residents: Ints, index_time: datetime) -> Rows:
        """Fill a row for each of some residents of a shard, who are in ascending order, all at one time."""
        index = np.full(len(residents), microseconds(index_time))
        with ALL_PROCESSORS:
            known = self.translator.of_columns(columns, residents)
            filled = self.engine.fill(known, Asked(np.arange(len(index) + 1), index))
        return self._rows(residents.tolist(), [index_time] * len(residents), filled, known, index)

    def warm(self) -> None:
        """Run everything once that a score needs, so that no resident waits for a compiler."""
        nobody, now = normalised(pl.DataFrame(schema={"subject_id": pl.Int64})), datetime(2000, 1, 1)
        self.one(nobody, 0, now, now)
        no_pairs, no_times = np.empty(0, np.int32), np.empty(0, np.int64)
        known = self.translator.of_pairs(self.translator.book(()).meanings, no_pairs, no_times, np.empty(0, np.float32))
        self.of_known(known, 0, now, now)
        self.many(nobody, [0, 1], [now, now], now)
        for question in self.questions.values():
            question.model.warm()

    def _rows(
        self, subject: Sequence[Subject], index_time: Sequence[datetime], filled: Singles, known: Known, index: Ints
    ) -> Rows:
        found, born_later = latest(known, index, self._kinds, self._zone)
        return Rows(subject, index_time, filled, found, born_later)

    def _answers(
        self, rows: Rows, now: datetime, targets: Iterable[str] | None, most: int | None
    ) -> list[list[Score | NotAtRisk]]:
        asked = self.questions if targets is None else targets
        columns = [_answer(self.questions[target], rows, now, most) for target in asked]
        return [[column[row] for column in columns] for row in range(len(rows.subject))]


def _answer(question: Question, rows: Rows, now: datetime, most: int | None) -> list[Score | NotAtRisk]:
    """Answer for every row."""
    broken = question.broken(rows).tolist()
    scores = _scores(question, rows, [row for row, reason in enumerate(broken) if reason < 0], now, most)
    return [
        next(scores) if reason < 0 else NotAtRisk(subject, question.target, index_time, question.reasons[reason])
        for subject, index_time, reason in zip(rows.subject, rows.index_time, broken, strict=True)
    ]


def _scores(question: Question, rows: Rows, at_risk: list[int], now: datetime, most: int | None) -> Iterator[Score]:
    """Yield a score for each row at risk."""
    if not at_risk:
        return
    model, which = question.model, np.array(at_risk)
    assessed = model.assess(question.looked_at(rows, which))
    chosen = choose(assessed.contributions, most)
    drivers = drivers_of(question.concepts, chosen, assessed.contributions, rows.latest.of(which, question.places))
    percentile = question.percentile(rows, which, assessed.probability)
    figures = (assessed.probability, assessed.lower, assessed.upper, percentile, chosen.other, assessed.known_gain)
    told = zip(at_risk, drivers, *(each.tolist() for each in figures), strict=True)
    for row, of_row, probability, lower, upper, place, other, known_gain in told:
        yield Score(
            subject_id=rows.subject[row],
            target=question.target,
            index_time=rows.index_time[row],
            probability=probability,
            lower=lower,
            upper=upper,
            tier=model.tier(probability),
            percentile=None if isnan(place) else place,
            drivers=of_row,
            other=other,
            base=model.base,
            completeness=grade(known_gain),
            model_version=model.card.version,
            scored_at=now,
            synthetic=model.card.synthetic,
        )
