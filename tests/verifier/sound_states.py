"""What the walk knew: the abstract states before every instruction, and whether a concrete machine is in one of them.

`record` verifies a program once more with pruning that compares ranges exactly, so that a path which stops there is
truly covered by what was recorded; without that, values that nothing depends on may differ.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from verifier_oracle import kernel_types

from pktbpf.engine.reference_extended import CONTEXT, STACK
from pktbpf.engine.reference_world import FUNCTION, MAP_POINTER, SCRATCH
from pktbpf.maps import layout as map_layout
from pktbpf.maps.face import Map
from pktbpf.objfile.kernel_btf import running_symbols
from pktbpf.program import Program
from pktbpf.verifier import check, equality, pruning, scalar
from pktbpf.verifier import state as kinds
from pktbpf.verifier.kernel_types import Kernel
from pktbpf.verifier.maps import MapInfo
from pktbpf.verifier.profile import NEWEST, profile
from pktbpf.verifier.reasons.trail import Trail
from pktbpf.verifier.state import Reg, Slot, State
from pktbpf.verifier.walk import Walk

M64 = (1 << 64) - 1
FRAME = 512


class Recorder(Trail):
    """A log that keeps a copy of every state that is not speculative, by instruction."""

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[int, list[State]] = defaultdict(list)

    def instruction(self, walk: Walk, previous: int, index: int) -> None:
        if not walk.state.speculative:
            self.states[index].append(walk.state.copy())


class Recorded:
    """The states of one accepted program, and the walk that made them."""

    def __init__(self, walk: Walk, states: dict[int, list[State]], maps: dict[int, list[Map]]):
        self.walk = walk
        self.states = states
        self.maps = maps  # id of a definition -> the live maps that it may be
        self._slots: dict[int, list[int]] = {}

    def live_slots(self, state: State) -> list[int]:
        """Masks of the stack slots that are read later, per frame."""
        if id(state) not in self._slots:
            self._slots[id(state)] = self.walk.live.live_slots(state)
        return self._slots[id(state)]


def record(program: Program, privilege: str, maps: dict[int, list[Map]], monkeypatch: Any) -> Recorded:
    """Raises Refusal where exact comparison needs too many instructions."""
    exact = equality.equal
    known = kernel_types()
    types = Kernel(known, running_symbols()) if known is not None else None
    made = check._Check(program, privilege, profile(NEWEST), 0, 2, types)
    recorder = Recorder()
    made.watcher = recorder
    with monkeypatch.context() as patched:
        patched.setattr(
            pruning, "equal", lambda walk, old, new, how: exact(walk, old, new, how or equality.RANGE_WITHIN)
        )
        made.run()
    assert made.walk is not None
    return Recorded(made.walk, recorder.states, maps)


class View:
    """A concrete machine for comparison: registers per frame, innermost last, and the stack."""

    def __init__(self, regs: list[list[int]], calls: list[int], stack: bytes, memory: Any):
        self.regs = regs
        self.calls = calls  # call sites, outermost first
        self.stack = stack
        self.memory = memory  # (address, size) -> whether it can be read


def explain(recorded: Recorded, index: int, view: View) -> str | None:
    """None where some recorded state holds the machine; else why the nearest one does not."""
    why = "no path reaches this instruction with these calls"
    for state in reversed(recorded.states.get(index, ())):
        depth = len(view.calls) + 1 - len(state.frames)
        if depth < 0 or [frame.callsite for frame in state.frames[1:]] != view.calls[depth:]:
            continue
        if not _same_start(recorded.walk, state, depth, view, index):
            continue
        found = _Comparison(recorded, view, depth).mismatch(state, index)
        if found is None:
            return None
        why = found
    return why


def _same_start(walk: Walk, state: State, depth: int, view: View, index: int) -> bool:
    at = view.calls[depth] if depth < len(view.calls) else index
    return walk.layout.function_at(at) == state.frames[0].subprog


class _Comparison:
    def __init__(self, recorded: Recorded, view: View, depth: int):
        self.recorded = recorded
        self.view = view
        self.depth = depth

    def mismatch(self, state: State, index: int) -> str | None:
        live = self.recorded.walk.layout.live
        slots = self.recorded.live_slots(state)
        last = len(state.frames) - 1
        for number, frame in enumerate(state.frames):
            concrete = self.view.regs[self.depth + number]
            mask = live[index] if number == last else live[state.at(number)] & 0x3C0
            for register in range(10):
                reg = frame.regs[register]
                if mask >> register & 1 and not self.holds(reg, concrete[register]):
                    return f"frame {number} r{register}: {concrete[register]:#x} is not in {reg.kind}:{reg.off}:{reg.v}"
            for position, slot in enumerate(frame.stack):
                if slots[number] >> position & 1 and not self._slot(slot, number, position):
                    found = self._bytes(number, position).hex()
                    return f"frame {number} fp-{8 * (position + 1)}: {found} is not in {slot[0]!r} {slot[1]}"
        return None

    def _bytes(self, frame: int, position: int) -> bytes:
        at = FRAME * (self.depth + frame + 1) - 8 * (position + 1)
        return self.view.stack[at : at + 8]

    def _slot(self, slot: Slot, frame: int, position: int) -> bool:
        types, spill = slot
        raw = self._bytes(frame, position)
        if any(types[7 - k] == kinds.ZERO_BYTE and raw[k] for k in range(8)):
            return False
        size = len(types) - len(types.rstrip(kinds.SPILL))
        if spill is None or not size:
            return True
        if size == 8:
            return self.holds(spill, int.from_bytes(raw, "little"))
        if size not in (1, 2, 4) or spill.kind != kinds.SCALAR:
            return True
        return scalar.holds(scalar.truncate(spill.v, size), int.from_bytes(raw[:size], "little"))

    def holds(self, reg: Reg, value: int) -> bool:
        """Whether a concrete register may hold what an abstract one says."""
        kind, base = reg.kind, reg.kind & kinds.BASE
        if kind == kinds.NOT_INIT:
            return True
        if kind == kinds.SCALAR:
            return scalar.holds(reg.v, value)
        if kind & kinds.OR_NULL and not value:
            return True
        if base == kinds.STACK:
            return self._moved(reg, value, (STACK << 32) + FRAME * (self.depth + reg.frame + 1))
        if base == kinds.CTX:
            return self._moved(reg, value, CONTEXT << 32)
        if base == kinds.FUNC:
            return value == FUNCTION | self.recorded.walk.layout.functions[reg.obj].start
        if base == kinds.MAP_VALUE and reg.obj.inner is not None:
            # What a map of maps gives is an inner map once it is known not to be null.
            return value in {MAP_POINTER | found.number << 32 for found in self._known(reg.obj.inner)}
        if base == kinds.MAP_PTR:
            return value - reg.off in {MAP_POINTER | found.number << 32 for found in self._known(reg.obj)}
        if base == kinds.MAP_VALUE:
            return any(self._in_value(reg, value, found) for found in self._known(reg.obj))
        if base in (kinds.MAP_KEY, kinds.DYNPTR):
            return value >> 32 == SCRATCH
        if base == kinds.MEM and isinstance(reg.obj, int) and not reg.v[1]:
            start = value - reg.off - scalar.signed64(reg.v[0]) & M64
            return not reg.obj or bool(self.view.memory(start, reg.obj))
        return True

    def _moved(self, reg: Reg, value: int, start: int) -> bool:
        """The variable part of a pointer is in its range."""
        return _offset_in(reg, value - start - reg.off)

    def _known(self, info: MapInfo) -> list[Map]:
        return self.recorded.maps.get(id(info.spec), [])

    def _in_value(self, reg: Reg, value: int, found: Map) -> bool:
        """The value is the start of an element plus what the register says."""
        stride = int(found.row[map_layout.STRIDE])
        size, place = int(found.row[map_layout.VALUES_SIZE]), value - (found.number << 32) - reg.off
        return any(_offset_in(reg, place - start) for start in range(0, size, stride or 1 << 32))


def _offset_in(reg: Reg, offset: int) -> bool:
    """Whether an offset is the variable part of a pointer; its 32-bit range is not kept up."""
    return scalar.holds((*reg.v[:6], scalar.S32_MIN, scalar.S32_MAX, 0, (1 << 32) - 1), offset & M64)
