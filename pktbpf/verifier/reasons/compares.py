"""Compares of a number on the path: which bound they leave open where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pktbpf.verifier.reasons.origin import ancestry, same_value
from pktbpf.verifier.state import SCALAR
from pktbpf.verifier.tnum import M32

if TYPE_CHECKING:
    from pktbpf.verifier.reasons.origin import Definition
    from pktbpf.verifier.reasons.scene import Scene
    from pktbpf.verifier.state import Reg

_SIGNED = (0x60, 0x70, 0xC0, 0xD0)  # s>, s>=, s<, s<=


class Tests(NamedTuple):
    """What the path's tests of a number leave open. at: instructions of the tests of it or of a copy, before it was
    used. earlier: of what it was computed from. lower, upper: whether a signed test alone stands there and leaves that
    bound open. half: whether only lower halves were compared of a number that is wider."""

    at: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()
    lower: bool = False
    upper: bool = False
    half: bool = False

    @property
    def signed(self) -> bool:
        """Whether all tests are signed and leave a bound open."""
        return self.lower or self.upper

    def words(self) -> str:
        """ "the signed test at 3 leaves the lower bound open"; empty where there was no test."""
        if not self.at:
            if not self.earlier:
                return ""
            return f"the test at {self.earlier[-1]} came before the number was computed"
        place = self.at[-1]
        if self.half:
            return f"the test at {place} compares the lower half only"
        if self.signed:
            which = "both bounds" if self.lower and self.upper else f"the {'lower' if self.lower else 'upper'} bound"
            return f"the signed test at {place} leaves {which} open"
        return f"the test at {place} is not enough"


def tests_of(scene: Scene, made: Definition | None, known: Reg | None, most: int, before: int) -> Tests:
    """The tests of a number up to a step of the path. known: its value there. most: what it may be."""
    if made is None:
        return Tests()
    root = same_value(made)[-1]
    steps = [step for step in root.tested if step < before]
    if not steps:
        others = [one for one in ancestry(root.sources) if one.how != "cleared"] if root.how == "arithmetic" else []
        found = sorted({step for one in others for step in same_value(one)[-1].tested if step < root.step})
        return Tests(earlier=tuple(scene.path[step].at for step in found))
    insns = [scene.insns[scene.path[step].at] for step in steps]
    at = tuple(scene.path[step].at for step in steps)
    if known is None or known.kind != SCALAR:
        return Tests(at)
    if known.v[5] > M32 and all(insn.code & 7 == 6 for insn in insns):
        return Tests(at, half=True)
    if any(insn.code & 0xF0 not in _SIGNED for insn in insns):
        return Tests(at)
    return Tests(at, lower=known.v[2] < 0, upper=known.v[3] > most)
