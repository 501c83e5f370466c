"""The values on the path to a refusal: the verification once more, keeping the registers before every instruction.

A second run is exact, because checkpoints and ids come out the same; it is worth its time only for short walks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier.log import Log
from pktbpf.verifier.state import Reg

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

LONGEST = 20_000  # instructions that the first run may have processed


class Trail(Log):
    """A log that keeps values instead of text: of the current path, (instruction, registers before it)."""

    def __init__(self) -> None:
        super().__init__(0, ())
        self.before: list[tuple[int, list[Reg]]] = []

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        """An instruction is about to be checked. One that forked on its own operand comes twice and is kept once."""
        if self.before and self.before[-1][0] == index and walk.insns[index].code & 7 in (4, 7):
            self.before.pop()
        self.before.append((index, walk.regs[:]))

    def position(self) -> int:
        """Mark of a branch that waits."""
        return len(self.before)

    def popped(self, mark: int) -> None:
        """The next path begins where it left the one before."""
        del self.before[mark:]

    def pruned(self, walk: Walk, previous: int, index: int) -> None:
        """The path ends."""

    def lines(self, lines: tuple[str, ...]) -> None:
        """No text is kept."""

    def entered(self, walk: Walk) -> None:
        """Of calls neither."""

    def returning(self, walk: Walk, index: int) -> None:
        """Nor of returns."""
