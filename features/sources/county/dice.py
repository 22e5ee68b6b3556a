"""Where chance comes from: a stream of its own for every purpose, so that a change in one leaves the others alone.

Two counties of one seed, with and without a programme, so differ by what the programme does and by nothing else.
"""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.random import Generator


@dataclass(frozen=True)
class Dice:
    """The streams of a block of residents."""

    seed: int
    block: int

    def of(self, purpose: str, year: int = 0) -> Generator:
        """Return the stream of a purpose and a year of the record, the one before it included."""
        return np.random.default_rng([self.seed, self.block, crc32(purpose.encode()), year + 1])
