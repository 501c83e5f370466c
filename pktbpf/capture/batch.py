"""A batch of packets as columns over one buffer: what every reader yields and every engine takes.

The buffer belongs to the reader and is reused: a batch is valid until the next one is asked for; `copy()` keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Interface:
    """One capture interface. linktype: DLT value. snaplen: bytes, 0 for unlimited. resolution: timestamp ticks a second
    as the file counts them. name: pcapng's if_name, "" for none. fcs: bytes of link-layer trailer noted by the file."""

    linktype: int
    snaplen: int = 0
    resolution: int = 1_000_000
    name: str = ""
    fcs: int = 0


@dataclass(slots=True)
class Batch:
    """Packets first .. first+n-1 of a capture (numbers count from 1 and go on over all files of one reader).

    data: uint8 buffer. start: int64[n], where each packet's captured bytes begin in data. caplen, wirelen: int64[n] in
    bytes. timestamp: int64[n], nanoseconds since 1970 UTC. interface: int32[n], index into interfaces.
    """

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    caplen: NDArray[np.int64]
    wirelen: NDArray[np.int64]
    timestamp: NDArray[np.int64]
    interface: NDArray[np.int32]
    interfaces: Sequence[Interface]
    first: int = 1

    def __len__(self) -> int:
        return len(self.start)

    def __iter__(self) -> Iterator[bytes]:
        """The captured bytes of each packet, in order."""
        return (self.packet(index) for index in range(len(self)))

    def packet(self, index: int) -> bytes:
        """The captured bytes of packet `index` (0-based within the batch)."""
        begin = int(self.start[index])
        return self.data[begin : begin + int(self.caplen[index])].tobytes()

    def linktype(self, index: int) -> int:
        """DLT of packet `index`."""
        return self.interfaces[int(self.interface[index])].linktype

    def single_linktype(self) -> int | None:
        """The link type that all packets share, or None when they differ."""
        kinds = {i.linktype for i in self.interfaces}
        if len(kinds) > 1 and len(self):
            kinds = {self.interfaces[int(n)].linktype for n in np.unique(self.interface)}
        return kinds.pop() if len(kinds) == 1 else None

    def copy(self) -> Batch:
        """A batch of its own that stays valid."""
        return Batch(
            self.data.copy(), self.start.copy(), self.caplen.copy(), self.wirelen.copy(),
            self.timestamp.copy(), self.interface.copy(), tuple(self.interfaces), self.first,
        )  # fmt: skip

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """The packets at `rows` (0-based), over the same buffer."""
        return Batch(
            self.data, self.start[rows], self.caplen[rows], self.wirelen[rows],
            self.timestamp[rows], self.interface[rows], self.interfaces, self.first,
        )  # fmt: skip


def batch_of(
    packets: Iterable[bytes], *, linktype: int = 1, wirelens: Sequence[int] | None = None,
    timestamps: Sequence[int] | None = None,
) -> Batch:  # fmt: skip
    """A batch from packets in memory. wirelens default to the captured lengths, timestamps (ns) to 0."""
    chunks = [bytes(p) for p in packets]
    caplen = np.array([len(c) for c in chunks], dtype=np.int64)
    count = len(chunks)
    start = np.zeros(count, dtype=np.int64)
    if count > 1:
        start[1:] = np.cumsum(caplen)[:-1]
    return Batch(
        data=np.frombuffer(b"".join(chunks) or b"\0", dtype=np.uint8).copy(),
        start=start,
        caplen=caplen,
        wirelen=np.array(wirelens, dtype=np.int64) if wirelens is not None else caplen.copy(),
        timestamp=np.array(timestamps, dtype=np.int64) if timestamps is not None else np.zeros(count, dtype=np.int64),
        interface=np.zeros(count, dtype=np.int32),
        interfaces=(Interface(linktype),),
    )
