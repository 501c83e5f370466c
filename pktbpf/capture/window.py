"""The reused window over a byte stream, and the columns a walker fills from it.

One buffer of about a megabyte that stays in the processor's cache holds the bytes; whole records are walked in place
and the unfinished tail moves to the front before the next read. Walking a mapping of the whole file instead costs a
cache miss for every record header. The buffer grows only as data for a large packet really arrives, so a damaged
length cannot make a large allocation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture.stream import ByteStream

LEAST_WINDOW = 1 << 12
# The fewest bytes a record can take is 16 (pcap, nothing captured): that bounds the packets in a window.
LEAST_RECORD = 16
MOST_ROWS = 1 << 15


class Window:
    """Bytes data[begin:end] of a stream; data[begin] is at stream offset `offset`. `grown` is the largest size ever."""

    def __init__(self, stream: ByteStream, size: int):
        self.stream = stream
        self.size = max(size, LEAST_WINDOW)
        self.data: NDArray[np.uint8] = np.empty(self.size, dtype=np.uint8)
        self._view = memoryview(self.data)  # type: ignore[arg-type]
        self.begin = 0
        self.end = 0
        self.ended = False
        self._base = 0
        self._spare: NDArray[np.uint8] | None = None
        self._held = False

    @property
    def offset(self) -> int:
        """Stream offset of data[begin]."""
        return self._base + self.begin

    @property
    def held(self) -> int:
        """Bytes at hand."""
        return self.end - self.begin

    def refill(self) -> bool:
        """Move the tail to the front and read once; False at the end of the stream. Doubles a full buffer."""
        if self.ended:
            return False
        held = self.held
        if self.begin:
            self._move_tail(held)
        if held == len(self.data):
            self._resize(2 * held)
        elif held < self.size < len(self.data):
            self._resize(self.size)
        count = self.stream.readinto(self._view[self.end :])
        self.ended = count == 0
        self.end += count
        return not self.ended

    def hold(self) -> None:
        """What data holds now must stay readable until the next call: the next refill goes into the other buffer."""
        self._held = True

    def _move_tail(self, held: int) -> None:
        tail = self.data[self.begin : self.end]
        if self._held:
            self._held = False
            fits = self._spare is not None and len(self._spare) == len(self.data)
            other = self._spare if fits and self._spare is not None else np.empty_like(self.data)
            other[:held] = tail
            self._spare, self.data = self.data, other
            self._view = memoryview(other)  # type: ignore[arg-type]
        else:
            self.data[:held] = tail.copy()
        self._base += self.begin
        self.begin, self.end = 0, held

    def _resize(self, size: int) -> None:
        fresh = np.empty(size, dtype=np.uint8)
        fresh[: self.end] = self.data[: self.end]
        self.data = fresh
        self._view = memoryview(fresh)  # type: ignore[arg-type]

    def need(self, count: int) -> bool:
        """Have at least `count` bytes at data[begin:]; False when the stream ends before."""
        while self.held < count:
            if not self.refill():
                return False
        return True

    def take(self, count: int) -> bytes:
        """The next `count` bytes, consumed; they must be held."""
        taken = self.data[self.begin : self.begin + count].tobytes()
        self.begin += count
        return taken


class Columns:
    """Preallocated, reused columns of one batch; `count` rows are filled."""

    def __init__(self, window: int):
        rows = min(max(window // LEAST_RECORD, 1), MOST_ROWS)
        self.start = np.empty(rows, dtype=np.int64)
        self.caplen = np.empty(rows, dtype=np.int64)
        self.wirelen = np.empty(rows, dtype=np.int64)
        self.timestamp = np.empty(rows, dtype=np.int64)
        self.interface = np.zeros(rows, dtype=np.int32)
        self.count = 0
