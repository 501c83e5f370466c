"""Where values came from: for every register and stack byte at the end of a path, the instruction that made it.

`Origins` goes once over the path, forwards, and links each definition to those it was made from: moves, arithmetic,
spills and fills, arguments and results of functions. `chain` turns one definition into a list, oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pktbpf.abi import helpers
from pktbpf.abi.kfuncs import ITERATOR_SLOTS
from pktbpf.isa.extended import Insn
from pktbpf.verifier.layout import is_call
from pktbpf.verifier.reasons.way import Step

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

LONGEST = 200_000  # steps of a path that are followed
_ALU_MOV, _ALU_NEG, _ALU_END = 0xB0, 0x80, 0xD0
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_UNCHANGED = ("copy", "fill", "spill", "argument", "returned")


class Definition:
    """One value in one place.

    step: position on the path, -1 for what is there at the start. index: instruction. place: R2, fp-16. how: entry,
    unset, constant, map, value, function, copy, arithmetic, load, fill, packet, spill, store, written, result, cleared,
    argument, returned or exchange. sources: what it was made from. tests: steps of the branches that looked at it.
    tested: of those that looked at it or at any unchanged copy; the same list in all of them.
    """

    __slots__ = ("how", "index", "place", "sources", "step", "tested", "tests")

    def __init__(self, step: int, index: int, place: str, how: str, sources: tuple[Definition, ...] = ()):
        self.step = step
        self.index = index
        self.place = place
        self.how = how
        self.sources = sources
        self.tests: list[int] = []
        self.tested: list[int] = sources[0].tested if how in _UNCHANGED and len(sources) == 1 else []


# What is known of a register's value on the way, only to find the stack bytes behind it: ("n", number),
# ("fp", frame, offset), ("map", map), or None.
Value = tuple[Any, ...] | None
Sources = tuple[Definition, ...]


class _Frame:
    """Registers of one function on the path."""

    __slots__ = ("callback", "regs", "values")

    def __init__(self, depth: int, callback: bool = False):
        self.callback = callback
        self.regs = [Definition(-1, -1, f"R{n}", "unset") for n in range(11)]
        self.values: list[Value] = [None] * 11
        self.regs[10] = Definition(-1, -1, "R10", "entry")
        self.values[10] = ("fp", depth, 0)


class Origins:
    """Definitions at the end of a path, before its last instruction."""

    def __init__(self, walk: Walk, path: Sequence[Step]):
        self.walk = walk
        self.insns = walk.insns
        self.frames = [_Frame(0)]
        for number in range(1, 6):
            self.frames[0].regs[number].how = "entry"
        if walk.state.frames[0].subprog == 0:
            for number in range(2, 6):
                self.frames[0].regs[number].how = "unset"
        self.stack: dict[tuple[int, int], Definition] = {}
        self.kept: dict[tuple[int, int], Value] = {}
        for position, step in enumerate(path[:-1]):
            self._follow(position, step)

    def register(self, number: int) -> Definition:
        """What last defined a register of the innermost function."""
        return self.frames[-1].regs[number]

    def bytes(self, frame: int, offset: int, size: int) -> tuple[Definition, ...]:
        """What last wrote stack bytes, each definition once, in the order of the bytes; unwritten ones are left out."""
        found = (self.stack.get((frame, byte)) for byte in range(offset, offset + size))
        return tuple(dict.fromkeys(one for one in found if one is not None))

    # ---- one step

    def _follow(self, position: int, step: Step) -> None:
        insn = self.insns[step.at]
        kind = insn.code & 7
        if kind in (4, 7):
            self._alu(position, step.at, insn)
        elif kind in (5, 6):
            self._jump(position, step, insn)
        elif insn.code == 0x18:
            self._wide(position, step.at, insn)
        elif kind == 0:
            self._packet_load(position, step, insn)
        elif kind == 1 or (kind == 3 and insn.code & 0xE0 == 0xC0 and insn.imm == 0x100):
            self._load(position, step.at, insn)
        else:
            self._store(position, step.at, insn)

    def _set(
        self, position: int, index: int, number: int, how: str, sources: Sources = (), value: Value = None
    ) -> None:
        frame = self.frames[-1]
        frame.regs[number] = Definition(position, index, f"R{number}", how, sources)
        frame.values[number] = value

    def _alu(self, position: int, index: int, insn: Insn) -> None:
        frame = self.frames[-1]
        operation, wide = insn.code & 0xF0, insn.code & 7 == 7
        old, source = frame.regs[insn.dst], frame.regs[insn.src]
        value = frame.values[insn.dst]
        if operation == _ALU_MOV:
            if not insn.code & 8:
                self._set(position, index, insn.dst, "constant", (), ("n", insn.imm))
            else:
                whole = wide and not insn.off
                self._set(position, index, insn.dst, "copy", (source,), frame.values[insn.src] if whole else None)
        elif operation in (_ALU_NEG, _ALU_END):
            self._set(position, index, insn.dst, "arithmetic", (old,))
        elif insn.code & 8:
            other = frame.values[insn.src]
            known = insn.code == 0x0F and other is not None and other[0] == "n"
            moved = _moved(value, other[1]) if known and other is not None else None
            self._set(position, index, insn.dst, "arithmetic", (old, source), moved)
        else:
            amount = {0x07: insn.imm, 0x17: -insn.imm}.get(insn.code)
            moved = _moved(value, amount) if amount is not None else None
            self._set(position, index, insn.dst, "arithmetic", (old,), moved)

    def _wide(self, position: int, index: int, insn: Insn) -> None:
        found = self.walk.maps.at.get(index)
        how = {0: "constant", 4: "function"}.get(insn.src, "map" if insn.src in (1, 5) else "value")
        value: Value = None
        if insn.src == 0:
            value = ("n", self.insns[index + 1].imm << 32 | insn.imm & 0xFFFFFFFF)
        elif how == "map" and found is not None:
            value = ("map", found[0])
        self._set(position, index, insn.dst, how, (), value)

    def _packet_load(self, position: int, step: Step, insn: Insn) -> None:
        for number in range(1, 6):
            self._set(position, step.at, number, "cleared", (self.frames[-1].regs[number],))
        self._set(position, step.at, 0, "packet")
        if step.how == "return":
            self._leave(position, step.at)

    def _place(self, insn: Insn, number: int) -> tuple[int, int] | None:
        value = self.frames[-1].values[number]
        return (value[1], value[2] + insn.off) if value is not None and value[0] == "fp" else None

    def _load(self, position: int, index: int, insn: Insn) -> None:
        place, size = self._place(insn, insn.src), _SIZES[insn.code & 0x18]
        if place is None:
            self._set(position, index, insn.dst, "load", (self.frames[-1].regs[insn.src],))
            return
        value = self.kept.get(place) if size == 8 else None
        self._set(position, index, insn.dst, "fill", self.bytes(*place, size), value)

    def _store(self, position: int, index: int, insn: Insn) -> None:
        frame = self.frames[-1]
        size = _SIZES[insn.code & 0x18]
        place = self._place(insn, insn.dst)
        atomic = insn.code & 7 == 3 and insn.code & 0xE0 == 0xC0 and insn.imm != 0x110
        if place is not None:
            source = (frame.regs[insn.src],) if insn.code & 7 == 3 else ()
            how = "exchange" if atomic else "spill" if source else "store"
            value = frame.values[insn.src] if how == "spill" and size == 8 else None
            self._write(position, index, place, size, how, source, value)
        if atomic and insn.imm & 1:
            self._set(position, index, 0 if insn.imm == 0xF1 else insn.src, "exchange")

    def _write(
        self, position: int, index: int, place: tuple[int, int], size: int, how: str,
        sources: Sources = (), value: Value = None,
    ) -> None:  # fmt: skip
        depth, offset = place
        made = Definition(position, index, f"fp{offset:+d}", how, sources)
        for byte in range(offset, offset + size):
            self.stack[depth, byte] = made
        for byte in range(offset - 7, offset + size):
            self.kept.pop((depth, byte), None)
        if value is not None:
            self.kept[place] = value

    # ---- jumps, calls and returns

    def _jump(self, position: int, step: Step, insn: Insn) -> None:
        operation = insn.code & 0xF0
        if operation == 0x90:
            self._leave(position, step.at)
        elif operation == 0x80:
            self._call(position, step, insn)
        elif operation not in (0x00, 0xE0):
            regs = self.frames[-1].regs
            for number in dict.fromkeys((insn.dst, insn.src) if insn.code & 8 else (insn.dst,)):
                regs[number].tests.append(position)
                regs[number].tested.append(position)

    def _call(self, position: int, step: Step, insn: Insn) -> None:
        caller = self.frames[-1]
        if step.how in ("call", "callback"):
            callee = _Frame(len(self.frames), step.how == "callback")
            for number in range(1, 6):
                source = (caller.regs[number],) if step.how == "call" else ()
                callee.regs[number] = Definition(position, step.at, f"R{number}", "argument", source)
                callee.values[number] = caller.values[number] if step.how == "call" else None
            if not callee.callback:
                self._clear(position, step.at)
            self.frames.append(callee)
            return
        for number, size in self._written_arguments(step.at, insn):
            value = caller.values[number]
            if value is not None and value[0] == "fp" and 0 < size <= 512:
                self._write(position, step.at, (value[1], value[2]), size, "written")
        self._clear(position, step.at)
        self._set(position, step.at, 0, "result")

    def _clear(self, position: int, index: int) -> None:
        for number in range(6):
            self._set(position, index, number, "cleared", (self.frames[-1].regs[number],))

    def _written_arguments(self, index: int, insn: Insn) -> Iterator[tuple[int, int]]:
        """(register, bytes) for the memory that a call fills, as far as its size is known."""
        kfunc = self.walk.layout.kfunc(index)
        for number, param in enumerate(kfunc.params if kfunc is not None else (), 1):
            if param.kind == "iter":
                yield number, 8 * ITERATOR_SLOTS[param.of]
            elif param.uninit:
                yield number, 16 if param.kind == "dynptr" else 8
        row = helpers.allowed(insn.imm, self.walk.privilege) if is_call(insn, 0) else None
        values = self.frames[-1].values
        for number, arg in enumerate(row.arg_types if row is not None else (), 1):
            if not (arg.write or arg.uninit):
                continue
            size = 16 if arg.kind == "dynptr" else arg.size
            after, table = values[number + 1], values[1]
            if arg.kind == "value" and table is not None and table[0] == "map":
                size = table[1].value_size
            elif arg.kind == "mem" and after is not None and after[0] == "n":
                size = after[1]
            yield number, size

    def _leave(self, position: int, index: int) -> None:
        if len(self.frames) == 1:
            return
        callee = self.frames.pop()
        depth = len(self.frames)
        for place in [place for place in self.stack if place[0] == depth]:
            del self.stack[place]
        for place in [place for place in self.kept if place[0] == depth]:
            del self.kept[place]
        if not callee.callback:
            self._set(position, index, 0, "returned", (callee.regs[0],), callee.values[0])


def _moved(value: Value, amount: int) -> Value:
    """A number or a stack address after an addition."""
    if value is None or value[0] == "map":
        return None
    return (*value[:-1], value[-1] + amount)


def ancestry(start: Iterable[Definition]) -> list[Definition]:
    """Definitions and everything they were made from, up to loads, calls and arguments; oldest first."""
    found: dict[Definition, None] = {}
    waiting = list(start)
    while waiting:
        one = waiting.pop()
        if one in found:
            continue
        found[one] = None
        if one.how not in ("load", "cleared", "written", "exchange"):
            waiting += one.sources
    return sorted(found, key=lambda one: (one.step, one.place))


def same_value(start: Definition) -> list[Definition]:
    """A definition and those it is an unchanged copy of, oldest last."""
    out = [start]
    while out[-1].how in _UNCHANGED and len(out[-1].sources) == 1:
        out.append(out[-1].sources[0])
    return out
