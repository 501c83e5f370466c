"""Per-packet results as JSON lines or CSV, written while packets stream: one record per packet and filter.

Fields: capture, number (from 1 in each capture), time (seconds since 1970 with nine decimals), caplen, wirelen, filter,
verdict (the program's u32 return value), accepted, kept (bytes of the packet that the socket would get), fault (empty,
`indeterminate`, `undelivered`, or the fault of an unverified program).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import msgspec

from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture
from pktbpf.engine.base import Fault
from pktbpf.replayer.session import Judged

FIELDS = ("capture", "number", "time", "caplen", "wirelen", "filter", "verdict", "accepted", "kept", "fault")
_FAULTS = ["" if fault is Fault.NONE else fault.name.lower() for fault in Fault]


class Record(msgspec.Struct):
    """One packet under one filter; the order of fields is that of `FIELDS`."""

    capture: str
    number: int
    time: str
    caplen: int
    wirelen: int
    filter: str
    verdict: int
    accepted: bool
    kept: int
    fault: str


class RecordSink:
    """Base of both formats. captures and filters are the names that records show."""

    def __init__(self, stream: BinaryIO, captures: Sequence[str], filters: Sequence[str]):
        self._stream = stream
        self._captures = captures
        self._filters = filters

    def begin(self, capture: int, source: Capture) -> None:
        """Nothing to prepare."""

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """Write the records of the batch."""
        self._stream.write(self.encode(self._rows(self._captures[capture], batch, judged)))
        self._stream.flush()

    def encode(self, rows: Iterator[tuple[object, ...]]) -> bytes:
        """Records as the format has them."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing in the buffer."""
        self._stream.flush()

    def _rows(self, name: str, batch: Batch, judged: Sequence[Judged]) -> Iterator[tuple[object, ...]]:
        times = [seconds(stamp) for stamp in batch.timestamp.tolist()]
        numbers = range(batch.first, batch.first + len(batch))
        shared = list(zip(numbers, times, batch.caplen.tolist(), batch.wirelen.tolist(), strict=True))
        each = [
            zip(one.verdict.tolist(), one.accepted.tolist(), one.kept.tolist(), one.fault.tolist(), strict=True)
            for one in judged
        ]
        for packet, *answers in zip(shared, *each, strict=True):
            for label, (verdict, accepted, kept, fault) in zip(self._filters, answers, strict=True):
                yield (name, *packet, label, verdict, accepted, kept, _FAULTS[fault])


class JsonLines(RecordSink):
    """One JSON object per line."""

    def encode(self, rows: Iterator[tuple[object, ...]]) -> bytes:
        """Lines of objects."""
        return msgspec.json.Encoder().encode_lines(Record(*row) for row in rows)  # type: ignore[arg-type]


class Csv(RecordSink):
    """Comma-separated values with a header line (RFC 4180 quoting, line feeds); accepted is 1 or 0."""

    def __init__(self, stream: BinaryIO, captures: Sequence[str], filters: Sequence[str]):
        super().__init__(stream, captures, filters)
        stream.write((",".join(FIELDS) + "\n").encode())

    def encode(self, rows: Iterator[tuple[object, ...]]) -> bytes:
        """Lines of values."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows((*row[:7], int(bool(row[7])), *row[8:]) for row in rows)
        return text.getvalue().encode("utf-8", "backslashreplace")


def seconds(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as seconds with nine decimals, exactly."""
    sign, magnitude = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    whole, rest = divmod(magnitude, 1_000_000_000)
    return f"{sign}{whole}.{rest:09d}"


SINKS = {"jsonl": JsonLines, "csv": Csv}
