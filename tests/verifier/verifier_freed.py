"""Programs that make Linux 6.18 follow a checkpoint it has freed, so that it may oops: nobody should ask it about them.

A state that came back inside a loop is kept until the loop is left, with its parents by address. A parent that stands
outside of any loop, at a helper whose callback has one, may be given up and freed meanwhile: pruning._miss and _drop
do what the kernel does, but nothing here is lost by it.
"""

from __future__ import annotations

import pytest

from pktbpf.verifier.pruning import Explored
from pktbpf.verifier.state import State


class Freed:
    """Watches verifications. found: the one since `begin` freed what the kernel still follows."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.found = False
        drop = Explored._drop

        def watched(explored: Explored, state: State) -> None:
            given_up = state.in_free
            drop(explored, state)
            if given_up and not state.in_free and not self.found:
                self.found = _followed(explored, state)

        patch.setattr(Explored, "_drop", watched)

    def begin(self) -> None:
        """Another program."""
        self.found = False


def _followed(explored: Explored, state: State) -> bool:
    """Whether a state that came back has this one among its parents."""
    for visit in explored.visits.values():
        for back in visit.backedges:
            parent = back.parent
            while parent is not None and parent is not state:
                parent = parent.parent
            if parent is not None:
                return True
    return False
