"""Golden verdicts: a text file with one line per packet of a capture, made to be read in a diff.

Columns: packet number, verdict, bytes kept; then what the packet is, for the reader only. A comparison looks at the
first three. Writing replaces the file at once, so parallel workers that write the same one cannot tear it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pktbpf.engine.base import Fault
from pktbpf.report.oneline import describe
from pktbpf.testing.captures import CapturedPacket, CaptureUnderTest
from pktbpf.testing.subject import FilterUnderTest, Judgement

MOST = 10  # changed packets that are explained
_HEADING = "# pktbpf golden verdicts 1"


class Row(NamedTuple):
    """One packet's line."""

    verdict: str
    kept: int


@dataclass(frozen=True, slots=True)
class Change:
    """A packet whose verdict is another than the file says; None where one side lacks the packet."""

    number: int
    was: Row | None
    now: Row | None
    judgement: Judgement | None


class Golden:
    """The golden file of a filter over a capture. path: where it is or will be."""

    def __init__(self, path: Path, filter: FilterUnderTest, capture: CaptureUnderTest):
        self.path, self.filter, self.capture = path, filter, capture
        self.digest = hashlib.sha256(capture.path.read_bytes()).hexdigest()[:16]

    def compare(self) -> list[Change]:
        """Run all packets; those whose line differs. Raises FileNotFoundError without a file, ValueError for one that
        is not of this kind."""
        old = parse(self.path.read_text())
        changes = []
        for number, judgement in enumerate(self.filter.judge_all(self.capture), 1):
            now, was = _row(judgement), old.pop(number, None)
            if now != was:
                changes.append(Change(number, was, now, judgement))
        changes += [Change(number, was, None, None) for number, was in sorted(old.items())]
        return changes

    def update(self) -> bool:
        """Write the file anew; whether that changed it."""
        text = self.render()
        if self.path.exists() and self.path.read_text() == text:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return True

    def render(self) -> str:
        """The file's text."""
        judged = self.filter.judge_all(self.capture)
        rows = [(packet, _row(judgement)) for packet, judgement in zip(self.capture, judged, strict=True)]
        accepted = sum(row.verdict == "accept" for _, row in rows)
        lines = [
            _HEADING,
            f"# filter {Path(self.filter.name).name}, attach {self.filter.filter.profile.name}",
            f"# capture {self.capture.path.name}, sha256 {self.digest}",
            f"# {len(rows)} packets, {accepted} accepted",
        ]
        lines += [_line(packet, row) for packet, row in rows]
        return "\n".join(lines) + "\n"

    def message(self, changes: list[Change]) -> str:
        """What a failed test says: the packets that changed, and why they have the verdict that they have now."""
        head = f"{len(changes)} of {len(self.capture)} verdicts of {self.filter.name} over {self.capture.name} changed"
        lines = [f"{head} ({self.path.name}):"]
        if f"sha256 {self.digest}" not in self.path.read_text():
            lines.append("  the capture itself is not the one that the file was made from")
        for change in changes[:MOST]:
            lines.append(f"  packet {change.number}: was {_said(change.was)}, is {_said(change.now)}")
            if change.judgement is not None:
                lines += self._reasons(change.judgement)
        if len(changes) > MOST:
            lines.append(f"  ... and {len(changes) - MOST} more")
        lines.append("  if this is right, run `pytest --pktbpf-update` and commit the file")
        return "\n".join(lines)

    def _reasons(self, judgement: Judgement) -> list[str]:
        from pktbpf.explain.why import deciding_line, sentence

        trace = judgement.trace()
        packet = judgement.packet
        assert isinstance(packet, CapturedPacket)
        return [
            f"    {describe(packet.linktype, packet, packet.wirelen)}",
            f"    {sentence(trace)}",
            f"    decided by {deciding_line(trace)}",
        ]


def parse(text: str) -> dict[int, Row]:
    """Packet number -> row. Raises ValueError where the text is no golden file."""
    lines = text.splitlines()
    if not lines or lines[0] != _HEADING:
        raise ValueError(f"does not begin with {_HEADING!r}")
    rows = {}
    for at, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        columns = line.split(None, 3)
        try:
            rows[int(columns[0])] = Row(columns[1], int(columns[2]))
        except (ValueError, IndexError):
            raise ValueError(f"line {at} is not `number verdict kept description`") from None
    return rows


def _row(judgement: Judgement) -> Row:
    if judgement.accepted:
        return Row("accept", judgement.kept)
    return Row("reject" if judgement.fault is Fault.NONE else judgement.fault.name.lower(), 0)


def _line(packet: CapturedPacket, row: Row) -> str:
    said = describe(packet.linktype, packet, packet.wirelen)
    shown = "".join(c if c.isprintable() else "?" for c in said)
    return f"{packet.number:>6} {row.verdict:<13} {row.kept:>6}  {shown}"


def _said(row: Row | None) -> str:
    if row is None:
        return "absent"
    return f"accept, {row.kept} bytes kept" if row.verdict == "accept" else row.verdict
