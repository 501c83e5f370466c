"""Sinks that a replay itself needs: per-packet columns in memory, and a function that sees every batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.replayer.results import Columns, Results
from pktbpf.replayer.session import Judged


class ColumnSink:
    """Collects one row per packet and filter; `put_into` gives them to the results. Memory grows with the packets."""

    def __init__(self) -> None:
        self._packets: list[tuple[NDArray[np.int64], ...]] = []
        self._captures: list[tuple[int, int]] = []
        self._judged: list[list[tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint8]]]] = []

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Copy what the reader is about to reuse."""
        numbers = np.arange(batch.first, batch.first + len(batch), dtype=np.int64)
        self._captures.append((capture, len(batch)))
        self._packets.append((numbers, batch.timestamp.copy(), batch.caplen.copy(), batch.wirelen.copy()))
        self._judged.append([(one.verdict.copy(), one.kept.copy(), one.fault.copy()) for one in judged])

    def close(self) -> None:
        """Nothing to give back."""

    def put_into(self, results: Results) -> None:
        """Join the pieces and hang them into the results."""
        indices = [np.full(count, capture, dtype=np.int32) for capture, count in self._captures]
        number, timestamp, caplen, wirelen = (
            _join([piece[place] for piece in self._packets], np.dtype(np.int64)) for place in range(4)
        )
        results.columns = Columns(_join(indices, np.dtype(np.int32)), number, timestamp, caplen, wirelen)
        for place, result in enumerate(results.filters):
            result.verdict = _join([piece[place][0] for piece in self._judged], np.dtype(np.uint32))
            result.kept = _join([piece[place][1] for piece in self._judged], np.dtype(np.int64))
            result.fault = _join([piece[place][2] for piece in self._judged], np.dtype(np.uint8))


def _join(pieces: list[NDArray], dtype: np.dtype) -> NDArray:  # type: ignore[type-arg]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)


class CallbackSink:
    """Hands every batch to a function."""

    def __init__(self, function: Callable[[int, Batch, Sequence[Judged]], None]):
        self.take = function

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to give back."""
