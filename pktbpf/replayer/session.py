"""One pass over any number of captures for any number of filters, batch by batch, in constant memory.

Each batch is viewed as the attach profile's socket sees it, run through every filter, tallied, and handed to sinks
(writers, printers, columns) with the original bytes. An error in one capture ends that capture only: what was read
before it counts, the error stands in its CaptureResult, and the next capture goes on.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture import linktypes
from pktbpf.capture.batch import Batch
from pktbpf.capture.open import Capture, open_capture
from pktbpf.engine.base import AttachProfile, Env, Fault, Skbs
from pktbpf.engine.skb import view
from pktbpf.errors import CaptureError, ExpressionError, LinkTypeError, UsageError, printable
from pktbpf.replayer import tally
from pktbpf.replayer.results import CaptureResult, FilterResult, Results
from pktbpf.replayer.selection import Selection

Policy: TypeAlias = Literal["drop", "accept", "error"]
POLICIES: tuple[str, ...] = get_args(Policy)


# From this size on, in bytes, a second thread that reads ahead pays: 60 ns a packet became 40 on two free cores. Where
# the second core is busy it does not. With windows of 1 MiB the hand-overs between the threads cost 10 ns more.
LARGE = 1 << 22
WINDOW = 1 << 22

# A capture of one empty packet in each format.
_SMALLEST = {
    "pcap": struct.pack("<IHHiIII4I", 0xA1B2C3D4, 2, 4, 0, 0, 0, 1, 0, 0, 0, 0),
    "pcapng": struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    + struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
    + struct.pack("<8I", 6, 32, 0, 0, 0, 0, 0, 32),
}


@dataclass(slots=True)
class Judged:
    """What one filter says about the n packets of a batch.

    verdict: uint32[n]. fault: uint8[n]. length: int64[n], skb->len. accepted: bool[n], the policy for indeterminate
    packets applied. kept: int64[n], bytes from the program's byte 0 that the socket gets. saved: int64[n], captured
    bytes that remain when the packet is written, from its first one; both 0 for dropped packets. counters: `tally`'s.
    """

    verdict: NDArray[np.uint32]
    fault: NDArray[np.uint8]
    length: NDArray[np.int64]
    accepted: NDArray[np.bool_]
    kept: NDArray[np.int64]
    saved: NDArray[np.int64]
    counters: NDArray[np.int64]


class Sink(Protocol):
    """Takes judged batches; `capture` is the index of the capture. A batch is valid during the call only."""

    def begin(self, capture: int, source: Capture) -> None:
        """A capture was opened; its packets follow."""
        ...

    def take(self, capture: int, batch: Batch, judged: Sequence[Judged]) -> None:
        """The next packets, in order."""
        ...

    def close(self) -> None:
        """Nothing follows; called once, after an error or interrupt too."""
        ...


class Session:
    """Filters made ready, and the results so far. `run` may be called once."""

    def __init__(
        self, selections: Sequence[Selection], *, profile: AttachProfile, env: Env, linktype: int | None = None,
        indeterminate: Policy = "drop", count: int | None = None, sinks: Sequence[Sink] = (),
    ):  # fmt: skip
        if indeterminate not in POLICIES:
            raise UsageError(f"unknown policy {indeterminate!r} for indeterminate packets; say drop, accept or error")
        if count is not None and count < 1:
            raise UsageError(f"a packet count of {count} makes no sense; give 1 or more")
        self.selections = selections
        self.profile = profile
        self.env = env
        self.linktype = linktype
        self.policy = indeterminate
        self.wanted = count
        self.sinks = sinks
        self.results = Results(filters=[FilterResult(selection.name, maps=selection.maps) for selection in selections])
        self.capture: Capture | None = None  # the one being read, for progress
        self._stateful = any(selection.stateful for selection in selections)
        self._idle = 0.0  # seconds of preparation inside the pass
        self._warmed: set[str] = set()

    def run(self, captures: Iterable[Any]) -> Results:
        """Replay all captures. Sinks are closed whatever happens; on an interrupt `results` has what was done."""
        begun = time.perf_counter()
        self.results.complete = False
        with ExitStack() as sinks:
            for sink in reversed(self.sinks):
                sinks.callback(sink.close)  # each of them, whatever another one's close raises
            try:
                for source in captures:
                    if not self._capture(source):
                        break
                self.results.complete = True
            finally:
                self.results.elapsed = time.perf_counter() - begun - self._idle
        return self.results

    def _capture(self, source: Any) -> bool:
        """One capture; False when enough packets were accepted."""
        entry = CaptureResult(capture_name(source))
        self.results.captures.append(entry)
        with closing(self._batches(entry, source)) as batches:
            try:
                for batch in batches:
                    entry.error = self._batch(entry, batch)
                    if self._enough:
                        return False
                    if entry.error is not None:
                        break
            except (ExpressionError, LinkTypeError) as error:
                entry.error = error  # a filter cannot serve this capture's link type; others it may
        return True

    @property
    def _enough(self) -> bool:
        """Whether as many packets were accepted as were wanted."""
        return self.wanted is not None and self.results.accepted >= self.wanted

    def _batches(self, entry: CaptureResult, source: Any) -> Generator[Batch, None, None]:
        """Batches up to the end or the first damage, which goes into `entry`; errors of sinks pass by untouched."""
        try:
            # Opening a pcapng file reads up to its first packets, with machine code that may have to be made.
            with nullcontext() if "pcapng" in self._warmed else self._stopped():
                opened = open_capture(source, window=WINDOW)
            with opened as capture:
                self.capture = capture
                for sink in self.sinks:
                    sink.begin(len(self.results.captures) - 1, capture)
                self._warm(capture.format)
                large = capture.size is None or capture.size > LARGE
                yield from capture.ahead() if large else capture
                if not entry.packets and capture.interfaces:
                    self._meet(entry, capture.linktype)  # what cannot be compiled is an error without packets too
        except CaptureError as error:
            entry.error = error

    def _batch(self, entry: CaptureResult, batch: Batch) -> CaptureError | None:
        """Judge, tally and pass on a batch, up to the last wanted packet."""
        begin, size = 0, len(batch)
        while begin < size:
            end = size
            if self.wanted is not None and self._stateful:
                # A program with maps must not see a packet after the last wanted one: run no more than may be wanted.
                end = min(size, begin + max(self.wanted - self.results.accepted, 1))
            part = batch if (begin, end) == (0, size) else _rows(batch, begin, end)
            error = self._part(entry, part)
            if error is not None or self._enough:
                return error
            begin = end
        return None

    def _part(self, entry: CaptureResult, batch: Batch) -> CaptureError | None:
        judged = self._judge(entry, batch)
        stop, error = self._stop(entry, batch, judged)
        if stop < len(batch):
            # Judging is cheap and a filter's verdicts so far stand: count again without the packets behind the stop.
            batch = _rows(batch, 0, stop)
            judged = [_head(one, stop) for one in judged]
        entry.packets += stop
        entry.bytes += int(tally.total(batch.caplen))
        entry.wire_bytes += int(tally.total(batch.wirelen))
        entry.accepted += int(np.count_nonzero(_any(judged)))
        for result, one in zip(self.results.filters, judged, strict=True):
            _tally(result, one)
        for sink in self.sinks:
            sink.take(len(self.results.captures) - 1, batch, judged)
        return error

    def _stop(self, entry: CaptureResult, batch: Batch, judged: list[Judged]) -> tuple[int, CaptureError | None]:
        """How many packets count: those before the first unwanted indeterminate one, and up to the last wanted one."""
        stop, error = len(batch), None
        if self.policy == "error":
            for selection, one in zip(self.selections, judged, strict=True):
                rows = np.flatnonzero(one.fault[:stop] == Fault.INDETERMINATE)
                if len(rows):
                    stop = int(rows[0])
                    error = _needs_more(entry, batch, stop, selection.name)
        if self.wanted is not None:
            rows = np.flatnonzero(_any(judged)[:stop])
            open_places = self.wanted - self.results.accepted
            if len(rows) >= open_places:
                stop, error = int(rows[open_places - 1]) + 1, None
        return stop, error

    def _judge(self, entry: CaptureResult, batch: Batch) -> list[Judged]:
        """All filters over one batch, link type by link type where they are mixed."""
        linktype = batch.single_linktype()
        if linktype is not None:
            return self._judge_one(entry, batch, linktype)
        kinds = np.array([i.linktype for i in batch.interfaces])[batch.interface]
        parts: list[tuple[NDArray[np.int64], list[Judged]]] = []
        for kind in dict.fromkeys(kinds.tolist()):
            rows = np.flatnonzero(kinds == kind)
            parts.append((rows, self._judge_one(entry, batch.take(rows), kind)))
        return [_merge(len(batch), [(rows, judged[i]) for rows, judged in parts]) for i in range(len(self.selections))]

    def _judge_one(self, entry: CaptureResult, batch: Batch, linktype: int) -> list[Judged]:
        new = linktype not in entry.linktypes
        if new:
            self._meet(entry, linktype)
        runners = [selection.runner(linktype) for selection in self.selections]
        meta = bool(self.env.metadata) or any(runner.needs_meta for runner in runners)
        if new:
            with self._stopped(), view(_rows(batch, 0, 0), self.profile, self.env, meta=meta) as skbs:
                for runner in runners:
                    runner.run(skbs)
        with view(batch, self.profile, self.env, meta=meta) as skbs:
            outcomes = [runner.run(skbs) for runner in runners]
            return [self._apply(batch, skbs, outcome.verdict, outcome.fault) for outcome in outcomes]

    def _warm(self, format: str) -> None:
        """Compile or load the reader of a format and the tally before the first packets count against the clock."""
        if format not in self._warmed:
            self._warmed.add(format)
            with self._stopped(), open_capture(_SMALLEST[format]) as capture:
                for batch in capture:
                    none = _rows(batch, 0, 0)
                    tally.total(none.caplen)
                    with view(none, self.profile, self.env, meta=False) as skbs:
                        self._apply(none, skbs, np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.uint8))

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """What happens meanwhile is preparation, which does not count against the clock; whatever it ends with."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._idle += time.perf_counter() - begun

    def _meet(self, entry: CaptureResult, linktype: int) -> None:
        """A link type that this capture had not shown yet: check it and prepare every filter for it."""
        if self.linktype is not None and linktype != self.linktype:
            raise UsageError(
                f"{entry.name}: the packets are {linktypes.name_of(linktype)}, not {linktypes.name_of(self.linktype)}"
            )
        entry.linktypes.append(linktype)
        with self._stopped():
            for selection in self.selections:
                selection.runner(linktype)

    def _apply(self, batch: Batch, skbs: Skbs, verdict: NDArray[np.uint32], fault: NDArray[np.uint8]) -> Judged:
        """Acceptance, kernel trimming and the captured bytes that remain."""
        count = len(batch)
        judged = Judged(
            verdict, fault, skbs.length, np.empty(count, dtype=np.bool_), np.empty(count, dtype=np.int64),
            np.empty(count, dtype=np.int64), np.zeros(tally.COUNTERS, dtype=np.int64),
        )  # fmt: skip
        tally.judge(
            verdict, fault, skbs.length, skbs.base, batch.start, batch.caplen, batch.wirelen, self.profile.floor,
            self.policy == "accept", judged.accepted, judged.kept, judged.saved, judged.counters,
        )  # fmt: skip
        return judged


def capture_name(source: Any) -> str:
    """What a capture is called in results: its path as given, else its name, else its type; always printable."""
    if isinstance(source, str | os.PathLike):
        return printable(os.fsdecode(source))
    name = getattr(source, "name", None)
    return printable(name) if isinstance(name, str) else f"<{type(source).__name__}>"


def _rows(batch: Batch, begin: int, end: int) -> Batch:
    """Packets begin .. end-1 of a batch, numbered as they were."""
    part = slice(begin, end)
    return Batch(
        batch.data, batch.start[part], batch.caplen[part], batch.wirelen[part], batch.timestamp[part],
        batch.interface[part], batch.interfaces, batch.first + begin,
    )  # fmt: skip


def _any(judged: list[Judged]) -> NDArray[np.bool_]:
    """bool[n]: accepted by any filter."""
    accepted = judged[0].accepted
    for other in judged[1:]:
        accepted = accepted | other.accepted
    return accepted


def _head(judged: Judged, count: int) -> Judged:
    """The first packets, counted again."""
    verdict, fault, length = judged.verdict[:count], judged.fault[:count], judged.length[:count]
    accepted, kept, saved = judged.accepted[:count], judged.kept[:count], judged.saved[:count]
    counters = np.zeros(tally.COUNTERS, dtype=np.int64)
    counters[tally.ACCEPTED] = np.count_nonzero(accepted)
    counters[tally.TRUNCATED] = np.count_nonzero(accepted & (kept < length))
    counters[tally.BYTES_KEPT] = saved.sum()
    counters[tally.FAULTS :] = np.bincount(fault, minlength=tally.COUNTERS - tally.FAULTS)
    counters[tally.FAULTS] = 0  # no fault
    return Judged(verdict, fault, length, accepted, kept, saved, counters)


def _needs_more(entry: CaptureResult, batch: Batch, row: int, name: str) -> CaptureError:
    return CaptureError(
        f"packet {batch.first + row}: {name} reads past the {int(batch.caplen[row])} captured of"
        f" {int(batch.wirelen[row])} bytes, where the kernel would have seen more",
        path=entry.name,
    )


def _merge(count: int, parts: list[tuple[NDArray[np.int64], Judged]]) -> Judged:
    """Columns of the whole batch from those of its link types."""
    first = parts[0][1]
    columns: list[Any] = []
    for name in ("verdict", "fault", "length", "accepted", "kept", "saved"):
        column = np.zeros(count, dtype=getattr(first, name).dtype)
        for rows, judged in parts:
            column[rows] = getattr(judged, name)
        columns.append(column)
    verdict, fault, length, accepted, kept, saved = columns
    counters = np.sum([judged.counters for _, judged in parts], axis=0)
    return Judged(verdict, fault, length, accepted, kept, saved, counters)


def _tally(result: FilterResult, judged: Judged) -> None:
    """Add one batch to the counters of a filter."""
    counters = judged.counters.tolist()
    result.accepted += counters[tally.ACCEPTED]
    result.dropped += len(judged.verdict) - counters[tally.ACCEPTED]
    result.truncated += counters[tally.TRUNCATED]
    result.bytes_kept += counters[tally.BYTES_KEPT]
    result.indeterminate += counters[tally.FAULTS + Fault.INDETERMINATE]
    result.undelivered += counters[tally.FAULTS + Fault.UNDELIVERED]
    for fault in _RARE:
        count = counters[tally.FAULTS + fault]
        if count:
            name = fault.name.lower()
            result.faults[name] = result.faults.get(name, 0) + count


_RARE = tuple(fault for fault in Fault if fault > Fault.UNDELIVERED)
