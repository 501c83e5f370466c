"""What a rig saw: one row per packet, in the order they were given, and the packets as the program saw them.

`Observed.skbs` can be handed to any engine as it is, so that a comparison runs over exactly the live packets: their
bytes, lengths and metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.context import COLUMN, COLUMNS, UNSET
from pktbpf.engine.base import Skbs

DROPPED = -1
UNDELIVERED = -2


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet as a program sees it. frame: the bytes around byte 0, which is at `base`. length: skb->len.
    metadata: values by column name (`pktbpf.abi.context.COLUMNS`), 0 where absent, except the two header offsets,
    which are then unset."""

    frame: bytes | memoryview
    base: int
    length: int
    metadata: Mapping[str, int]


@dataclass(slots=True)
class Observed:
    """The live kernel's verdicts over n packets.

    delivered: bool[n], False where no socket of the rig could get the packet, filter or not. accepted: bool[n].
    kept: int64[n], bytes of an accepted packet that were left, 0 otherwise (and for an accepted empty packet).
    skbs: the packets as the program saw them; an undelivered one is empty and not `skbs.delivered`.
    """

    delivered: NDArray[np.bool_]
    accepted: NDArray[np.bool_]
    kept: NDArray[np.int64]
    skbs: Skbs

    def __len__(self) -> int:
        return len(self.kept)

    @classmethod
    def of(cls, lengths: Sequence[int], seen: Sequence[Seen | None]) -> Observed:
        """From kept lengths, DROPPED or UNDELIVERED, and the packets (None for an undelivered one)."""
        column = np.asarray(lengths, dtype=np.int64)
        return cls(column != UNDELIVERED, column >= 0, np.maximum(column, 0), skbs_of(seen))


def skbs_of(seen: Sequence[Seen | None]) -> Skbs:
    """Engine input from packets a rig delivered; None becomes an empty, undelivered row."""
    count = len(seen)
    start = np.zeros(count + 1, dtype=np.int64)
    base, length = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    captured = np.zeros(count, dtype=np.int64)
    meta = np.zeros((count, len(COLUMNS)), dtype=np.int64)
    meta[:, [COLUMN["mac_offset"], COLUMN["network_offset"]]] = UNSET
    rows: dict[int, NDArray[np.int64]] = {}
    for n, packet in enumerate(seen):
        start[n + 1] = start[n] + (len(packet.frame) if packet else 0)
        if packet is None:
            continue
        base[n], length[n] = packet.base, packet.length
        captured[n] = min(packet.length, len(packet.frame) - packet.base)
        key = id(packet.metadata)
        if key not in rows:
            rows[key] = _row(packet.metadata)
        meta[n] = rows[key]
    return Skbs(
        # Writable like a reader's buffer, so that compiled engines meet one array type only.
        data=np.frombuffer(bytearray(b"".join(p.frame for p in seen if p) or b"\0"), dtype=np.uint8),
        base=start[:-1] + base,
        length=length,
        captured=captured,
        head=base.copy(),
        meta=meta,
        delivered=np.array([p is not None for p in seen], dtype=np.bool_),
    )


def _row(metadata: Mapping[str, int]) -> NDArray[np.int64]:
    row = np.zeros(len(COLUMNS), dtype=np.int64)
    row[[COLUMN["mac_offset"], COLUMN["network_offset"]]] = UNSET
    for name, value in metadata.items():
        row[COLUMN[name]] = value
    return row
