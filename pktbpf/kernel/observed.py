"""What a rig saw: one row per packet, in the order they were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Observed:
    """The live kernel's verdicts over n packets.

    delivered: bool[n], False where no socket of the rig could get the packet, filter or not. accepted: bool[n].
    kept: int64[n], bytes of an accepted packet that were left, 0 otherwise (and for an accepted empty datagram).
    """

    delivered: NDArray[np.bool_]
    accepted: NDArray[np.bool_]
    kept: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kept)

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Observed:
        """From kept lengths with -1 for a dropped packet and -2 for one that cannot be delivered."""
        column = np.asarray(lengths, dtype=np.int64)
        return cls(column != -2, column >= 0, np.maximum(column, 0))
