"""The values on the path to a refusal: the verification once more, keeping the registers before every instruction.

A second run is exact, because checkpoints and ids come out the same; it is worth its time only for short walks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier.state import Reg
from pktbpf.verifier.watch import Watcher

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

LONGEST = 20_000  # instructions that the first run may have processed


class Trail(Watcher):
    """Of the current path, (instruction, registers before it)."""

    def __init__(self) -> None:
        self.before: list[tuple[int, list[Reg]]] = []

    def begins(self, walk: Walk) -> None:
        """Another function, another path."""
        self.before.clear()

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        """One that forked on its own operand comes twice and is kept once."""
        if self.before and self.before[-1][0] == index and walk.insns[index].code & 7 in (4, 7):
            self.before.pop()
        self.before.append((index, walk.regs[:]))

    def position(self) -> int:
        """How long the path is when a branch is queued."""
        return len(self.before)

    def popped(self, mark: int) -> None:
        """The next path leaves the last one there."""
        del self.before[mark:]
