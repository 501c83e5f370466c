"""Whether both sides admit the same programs: the errno of our checks beside that of the live kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pktbpf.errors import ProgramRefused
from pktbpf.filter import verify
from pktbpf.kernel.rigs import Rig
from pktbpf.program import ClassicProgram


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A program that only one side admits, or that they refuse with different errnos (0: admitted)."""

    program: ClassicProgram
    ours: int
    kernel: int
    reason: str


def our_errno(program: ClassicProgram) -> tuple[int, str]:
    """(0, "") or the errno and reason with which our checks refuse a classic program."""
    try:
        verify(program)
    except ProgramRefused as refusal:
        return refusal.errno, str(refusal)
    return 0, ""


def disagreements(programs: Iterable[ClassicProgram], rig: Rig) -> list[Disagreement]:
    """The programs on which our checks and SO_ATTACH_FILTER disagree."""
    found = []
    for program in programs:
        kernel = rig.attach_classic(program.to_bytes())
        ours, reason = our_errno(program)
        if ours != kernel:
            found.append(Disagreement(program, ours, kernel, reason))
    rig.detach()
    return found
