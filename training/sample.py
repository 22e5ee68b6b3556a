"""What fitting, validation and comparison look at: the rows of a cohort, their profiles, and whom they are about.

Every array and frame of a training run is aligned with the cohort's rows, also with those whose outcome is unknown:
row i of the one is row i of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.cohort import Cohort, Target, cohort
from features.engine import KEYS, Engine, profile_store
from features.errors import WeibingError
from features.events import EventStore
from training.censoring import CensoringWeights, censoring_weights
from training.groups import groups_of
from training.sampling import memory_budget, share_that_fits, take_persons

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """The rows of a cohort with their profiles.

    Attributes
    ----------
    cohort : who was at risk when, and what then happened
    profiles : subject_id, index_time and every feature of the declaration
    groups : a text column for each way of dividing residents, null where unknown, as known at the index time
    weights : of each row, 0 where the outcome is unknown
    everybody : subject_id, index_time, outcome and weight of all rows, also of residents who were not drawn
    share : of the residents at risk, who were drawn because not all fit into memory
    """

    cohort: Cohort
    profiles: pl.DataFrame
    groups: pl.DataFrame
    weights: CensoringWeights
    everybody: pl.DataFrame
    share: float = 1.0

    @property
    def target(self) -> Target:
        """What is predicted."""
        return self.cohort.target

    @property
    def outcome(self) -> Floats:
        """Whether the outcome came within the horizon, shape (n,); without meaning where the weight is 0."""
        return self.weights.outcome

    @property
    def weight(self) -> Floats:
        """Inverse probability of remaining uncensored, shape (n,); 0 where the outcome is unknown."""
        return self.weights.weight

    @cached_property
    def person(self) -> Ints:
        """Whose row it is, shape (n,)."""
        return self.cohort.rows["subject_id"].to_numpy()

    @cached_property
    def time(self) -> Floats:
        """Days to outcome, death or end of observation, shape (n,)."""
        return self.cohort.rows["time"].to_numpy()

    @cached_property
    def observed(self) -> Bools:
        """Whether the outcome ended that time, shape (n,)."""
        return self.cohort.rows["observed"].to_numpy()

    @cached_property
    def died(self) -> Bools:
        """Whether death without the outcome ended it, shape (n,)."""
        return self.cohort.rows["died"].to_numpy()

    def take(self, which: pl.Series) -> "Sample":
        """Return some of the rows, weighted anew for their own censoring."""
        rows = self.cohort.rows.filter(which)
        return Sample(
            replace(self.cohort, rows=rows),
            self.profiles.filter(which),
            self.groups.filter(which),
            follow_up_weights(rows, self.target),
            self.everybody,
            self.share,
        )


def sample_of(
    store: EventStore,
    target: Target,
    engine: Engine,
    *,
    memory_bytes: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Sample:
    """Find the cohort of a target in a store, and fill its profiles: of as many residents as fit into memory.

    Parameters
    ----------
    memory_bytes : what may be used; None for what there is
    seed : of whom to draw, where not all fit

    Raises
    ------
    WeibingError
        If nobody is at risk.
    """
    progress("finding who is at risk")
    with store.held() as still:
        found = cohort(still, target, engine.vocabulary)
        if not len(found.rows):
            raise WeibingError(f"Nobody in {store.place} is at risk for the target {target.name}: {_reasons(found)}.")
        share = share_that_fits(len(found.rows), len(engine.profile), memory_bytes or memory_budget())
        drawn = replace(found, rows=take_persons(found.rows, share, seed))
        progress(f"filling {len(drawn.rows):,} profiles{_of_all(share)}")
        profiles = profile_store(still, drawn.rows, engine)
        groups = groups_of(still, drawn.rows, profiles, engine)
    everybody = follow_up_weights(found.rows, target)
    told = found.rows.select(KEYS).with_columns(outcome=everybody.outcome, weight=everybody.weight)
    return Sample(drawn, profiles, groups, follow_up_weights(drawn.rows, target), told, share)


def _of_all(share: float) -> str:
    return "" if share == 1 else f", of {share:.1%} of the residents at risk: the others do not fit into memory"


def follow_up_weights(rows: pl.DataFrame, target: Target) -> CensoringWeights:
    """Weigh a cohort's rows so that those whose outcome is known stand for all."""
    time, observed, died = (rows[name].to_numpy() for name in ("time", "observed", "died"))
    return censoring_weights(time, observed, died, target.horizon_days)


def _reasons(found: Cohort) -> str:
    return "; ".join(f"{reason} {number:,}" for reason, number in found.flow.items())
