"""The path to a refusal: every instruction on it, in order, and the branches that were decided on the way.

In: a walk that stopped, with the history that it keeps for precision. Out: steps (instruction, call depth, how the path
went on), and branches with what each means for the registers, repeated ones folded to a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from pktbpf.isa.extended import Insn
from pktbpf.verifier.layout import TAIL_CALL, is_call, jump_distance
from pktbpf.verifier.state import State
from pktbpf.verifier.tnum import M32, M64

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_DEEPER = {"call": 1, "callback": 1, "return": -1}
_LONGEST_ROUND = 64  # branches in one round of a loop that is folded
_SIGN = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=", 0xA0: "<", 0xB0: "<=",
         0xC0: "s<", 0xD0: "s<="}  # fmt: skip
_OPPOSITE = {"==": "!=", "!=": "==", ">": "<=", "<=": ">", ">=": "<", "<": ">=", "s>": "s<=", "s<=": "s>", "s>=": "s<",
             "s<": "s>="}  # fmt: skip


class Step(NamedTuple):
    """One instruction of the path. at: its number. depth: frames above the entry. how: next, taken, not taken, goto,
    call, return, callback, or last for the one that was refused."""

    at: int
    depth: int
    how: str


@dataclass(frozen=True, slots=True)
class Branch:
    """One decision. insn: where; to: the instruction that came next. how: as in Step. condition: what holds from then
    on, `r1 > 3`, empty for calls and returns."""

    insn: int
    to: int
    how: str
    condition: str

    def as_object(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"insn": self.insn, "to": self.to, "how": self.how, "condition": self.condition}


@dataclass(frozen=True, slots=True)
class Rounds:
    """The same branches several times in a row: a loop."""

    times: int
    body: tuple[Branch | Rounds, ...]

    def as_object(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"times": self.times, "body": [one.as_object() for one in self.body]}


Way = tuple[Branch | Rounds, ...]


def instructions(walk: Walk, end: int) -> list[int]:
    """Numbers of all instructions from the entry of the program (or callback) to `end`, where the walk stopped."""
    out: list[int] = []
    state: State | None = walk.state
    index = end
    if walk.layout.jump[end] and not walk.recorded:
        # Refused before it was looked at, so the history does not say how the path came here.
        out.append(end)
        index = walk.before
    while state is not None and index >= 0:
        parent = state.parent
        index = _back_to_checkpoint(walk, state, index, out)
        if parent is None or _is_entry(walk, parent):
            break
        state, index = parent, parent.last
    out.reverse()
    return out


def _is_entry(walk: Walk, checkpoint: State) -> bool:
    """A checkpoint at the first instruction of all: nothing lies before it."""
    root = walk.layout.functions[checkpoint.frames[0].subprog].start
    return checkpoint.parent is None and checkpoint.insn == root and not checkpoint.history


def _back_to_checkpoint(walk: Walk, state: State, index: int, out: list[int]) -> int:
    """Append the instructions since a checkpoint, newest first; returns the oldest."""
    history, first, insns = state.history, state.first, walk.insns
    if state.parent is None:
        # A callback that a timer runs later begins at its own first instruction.
        first = walk.layout.functions[state.frames[0].subprog].start
    left = len(history)
    while True:
        second_half = out and not insns[index].code and index and insns[index - 1].code == 0x18
        if not second_half and not (out and out[-1] == index and insns[index].code & 7 in (4, 7)):
            out.append(index)
        if index == first and (left == 0 or (left == 1 and history[0][0] == index)):
            return index
        if left and history[left - 1][0] == index:
            index = history[left - 1][1]
            left -= 1
        else:
            index -= 1
        if index < 0:
            return index


def steps(walk: Walk, path: Sequence[int]) -> list[Step]:
    """The path with call depths and with how each instruction led to the next. Equal steps are the same object."""
    out: list[Step] = []
    known: dict[tuple[int, int, int], Step] = {}
    depth = 0
    for index, following in pairwise(path):
        place = index, following, depth
        step = known.get(place)
        if step is None:
            step = known[place] = Step(index, depth, _how(walk, index, following))
        out.append(step)
        depth += _DEEPER.get(step.how, 0)
    if path:
        out.append(Step(path[-1], depth, "last"))
    return out


def _how(walk: Walk, index: int, following: int) -> str:
    insn = walk.insns[index]
    code = insn.code
    if code & 7 not in (5, 6):
        packet_load = code & 7 == 0 and code & 0xE0 in (0x20, 0x40)
        return "return" if packet_load and following != index + 1 else "next"
    operation = code & 0xF0
    if operation == 0x90:
        return "return"
    if operation == 0x80:
        if following == index + 1:
            return "next"
        if is_call(insn, 0) and insn.imm == TAIL_CALL:
            return "return"
        return "call" if is_call(insn, 1) else "callback"
    if operation == 0x00:
        return "goto"
    return "taken" if following == index + jump_distance(insn) + 1 else "not taken"


def branches(walk: Walk, path: Sequence[Step]) -> Iterator[Branch]:
    """The decisions on a path: conditional jumps, calls and returns. Equal ones are the same object."""
    known: dict[tuple[int, int], Branch] = {}
    for step, following in pairwise(path):
        if step.how in ("next", "goto"):
            continue
        place = step.at, following.at
        found = known.get(place)
        if found is None:
            found = known[place] = Branch(*place, step.how, _condition(walk.insns[step.at], step.how))
        yield found


def _condition(insn: Insn, how: str) -> str:
    if how not in ("taken", "not taken"):
        return ""
    if insn.code & 0xF0 == 0xE0:
        return "the rounds are used up" if how == "taken" else "another round"
    return condition(insn, how == "taken")


def condition(insn: Insn, taken: bool) -> str:
    """What a conditional jump says of its operands when it is taken, or not: `r1 > 3`, `w2 s<= r3`."""
    half = "w" if insn.code & 7 == 6 else "r"
    sign = _SIGN[insn.code & 0xF0]
    right = f"{half}{insn.src}" if insn.code & 8 else _number(insn, sign, half)
    left = f"{half}{insn.dst}"
    if sign == "&":
        return f"{left} & {right} {'!=' if taken else '=='} 0"
    return f"{left} {sign if taken else _OPPOSITE[sign]} {right}"


def _number(insn: Insn, sign: str, half: str) -> str:
    value = insn.imm
    if value < 0 and sign in (">", ">=", "<", "<=", "&"):
        value &= M32 if half == "w" else M64
    return str(value) if -0x8000 <= value <= 0xFFFF else hex(value)


def fold(found: Iterable[Branch]) -> Way:
    """The same branches with every sequence that repeats itself folded to one with a count."""
    out: list[Branch | Rounds] = []
    for branch in found:
        out.append(branch)
        while _folded(out):
            pass
    return tuple(out)


def _folded(out: list[Branch | Rounds]) -> bool:
    """Fold once at the end of the list, if its tail repeats what stands before it."""
    last = out[-1]
    for size in range(1, min(_LONGEST_ROUND, len(out) - 1) + 1):
        before = out[-size - 1]
        if isinstance(before, Rounds) and len(before.body) == size and before.body == tuple(out[-size:]):
            out[-size - 1 :] = [Rounds(before.times + 1, before.body)]
            return True
        alike = before is last or (isinstance(before, Rounds) and before == last)
        if alike and len(out) >= 2 * size and out[-2 * size : -size] == out[-size:]:
            out[-2 * size :] = [Rounds(2, tuple(out[-size:]))]
            return True
    return False
