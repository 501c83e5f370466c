"""Prints accepted packets while they stream, one line each: number, time, lengths, and what the packet is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.replayer.session import Judged
from pktbpf.report import oneline


class Printer:
    """captures and filters: names to show; they appear in the lines only where there are several."""

    def __init__(self, stream: BinaryIO, captures: Sequence[str], filters: Sequence[str]):
        self._stream = stream
        self._captures = captures if len(captures) > 1 else None
        self._filters = len(filters)

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Print the packets that any filter accepts; with several filters their numbers (from 1) stand in brackets."""
        accepted = judged[0].accepted
        for other in judged[1:]:
            accepted = accepted | other.accepted
        lead = f"{self._captures[capture]} " if self._captures is not None else ""
        lines = [f"{lead}{self._line(batch, int(row), judged)}\n" for row in np.flatnonzero(accepted)]
        self._stream.write("".join(lines).encode("utf-8", "backslashreplace"))
        self._stream.flush()  # whoever reads a live capture's lines wants them now

    def close(self) -> None:
        """Leave nothing in the buffer."""
        self._stream.flush()

    def _line(self, batch: Batch, row: int, judged: Sequence[Judged]) -> str:
        caplen, wirelen = int(batch.caplen[row]), int(batch.wirelen[row])
        saved = max(int(one.saved[row]) for one in judged)
        size = f"{wirelen}" if saved == wirelen else f"{saved}/{wirelen}"
        by = ""
        if self._filters > 1:
            by = "[" + ",".join(str(n) for n, one in enumerate(judged, 1) if one.accepted[row]) + "] "
        text = oneline.describe(batch.linktype(row), batch.packet(row), max(wirelen, caplen))
        return f"{batch.first + row:>6} {clock(int(batch.timestamp[row]))} {size:>5} {by}{text}"


def clock(nanoseconds: int) -> str:
    """Date and time of day in UTC; nanoseconds only where there are any: 2026-11-22 14:03:21.123456."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    micro, nano = divmod(rest, 1000)
    day = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))
    return f"{day}.{micro:06d}" + (f"{nano:03d}" if nano else "")
