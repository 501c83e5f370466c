"""What a walk tells of itself while it goes on: `Watcher` hears all of it and does nothing.

The log (log.py) writes it down, the trail of a refusal (reasons/trail.py) keeps values. A walk without a watcher skips
the calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.verifier.scalar import Scalar
from pktbpf.verifier.state import State

if TYPE_CHECKING:
    from pktbpf.verifier.layout import Layout
    from pktbpf.verifier.precision import Wanted
    from pktbpf.verifier.walk import Walk

Chain = tuple[tuple[int, ...], int]


class Watcher:
    """Hears of every step. In the order in which things happen; all methods may be left as they are. every_state:
    whether it wants to hear of stack liveness, which then takes longer to find."""

    every_state = False

    def shaped(self, layout: Layout) -> None:
        """The functions are known."""

    def analysed(self, layout: Layout) -> None:
        """Live registers and loops are known."""

    def begins(self, walk: Walk) -> None:
        """A function is verified from its start: the main one, or a global one."""

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        """An instruction is about to be checked."""

    def branched(self, walk: Walk, index: int) -> None:
        """A conditional jump was checked and the path goes on behind it."""

    def pruned(self, walk: Walk, previous: int, index: int) -> None:
        """An equal or wider state was explored from here before."""

    def position(self) -> int:
        """Mark of a branch that waits, handed to `popped` when it is taken up."""
        return 0

    def popped(self, mark: int) -> None:
        """The path ended; the branch with that mark is next."""

    def ended(self, walk: Walk) -> None:
        """All paths from the start of `begins` are explored."""

    def lines(self, lines: tuple[str, ...]) -> None:
        """Words of a rule, the last ones those of a refusal."""

    def contradiction(self, where: str, v: Scalar) -> None:
        """The ranges of a value do not go together and are forgotten. where: alu, true_reg1, false_reg2, ..."""

    def framed(self) -> None:
        """A frame was made, for a call or for a callback that waits."""

    def entered(self, walk: Walk) -> None:
        """A function of the program was called: its frame is the innermost one."""

    def returning(self, walk: Walk, index: int) -> None:
        """It returns to `index`; both frames are still there."""

    def loop_limit(self, walk: Walk) -> None:
        """All rounds of a bpf_loop are explored."""

    def precise_start(self, wanted: Wanted, index: int, first: int, following: int) -> None:
        """A search backwards begins or goes on before a checkpoint."""

    def precise_step(self, walk: Walk, wanted: Wanted, index: int) -> None:
        """One instruction of it."""

    def precise_parent(self, walk: Walk, state: State, wanted: Wanted, frame: int) -> None:
        """A checkpoint got the marks of one frame."""

    def precise_all(self, state: State) -> None:
        """The search gave up."""

    def forced(self, frame: int, text: str) -> None:
        """One scalar marked then."""

    def propagating(self, number: int, wanted: Wanted) -> None:
        """What an equal checkpoint needed precisely."""

    def loop(self, word: str, chain: Chain) -> None:
        """A stay in a loop begins or ends, or comes back to an explored state."""

    def live_stack(
        self, chain: tuple[int, ...], frame: int, index: int, old: tuple[int, int], new: tuple[int, int]
    ) -> None:
        """Slots of a frame that may be read from an instruction on, and those written on all ways on, were other ones.
        chain: call sites, and the start of the function."""

    def live_rounds(self, chain: tuple[int, ...], rounds: int) -> None:
        """All of these marks of one function are settled."""
