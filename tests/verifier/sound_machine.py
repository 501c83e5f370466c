"""The reference machine under supervision: every step is held against what the verifier promised.

Registers and stack bytes that nothing wrote are followed, every access is compared with `Verified.facts`, and before
every instruction the machine must be inside a recorded abstract state. The first broken promise ends the run.
"""

from __future__ import annotations

import contextlib
from typing import Any

from sound_states import FRAME, Recorded, View, explain

from pktbpf.abi import helpers, kfuncs
from pktbpf.engine import reference_extended
from pktbpf.engine.base import Fault
from pktbpf.engine.control_helpers import ALL_FRAMES
from pktbpf.engine.reference_extended import CONTEXT, STACK, Machine, Walk
from pktbpf.engine.reference_packet import Faulted, LoadFailed
from pktbpf.engine.reference_world import READ, SCRATCH, WRITE
from pktbpf.isa.extended import Insn, Kind, Row
from pktbpf.maps import layout as map_layout
from pktbpf.program import Program
from pktbpf.verifier.facts import Access

U64 = (1 << 64) - 1
_PLACED = ("stack", "ctx", "map_value", "map_key", "mem")  # the rest is several kinds, or the kernel's own structures
_KFUNCS = {row.name: row for row in kfuncs.ROWS}


class BrokenPromise(AssertionError):
    """What happened is something that the verifier had ruled out."""


class Judge:
    """The promises for one program. strict: unwritten stack must not be read."""

    def __init__(self, program: Program, facts: Any, recorded: Recorded | None, strict: bool):
        self.program = program
        self.facts = facts
        self.recorded = recorded
        self.strict = strict
        self.steps = 0
        self.judged = 0
        self.faults: list[Fault] = []
        self.foreign = False  # a structure of the kernel was looked into, which is not there


class Supervised(Machine):
    """A machine that asks its judge; `judge` is set on the class before a run."""

    judge: Judge

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # At the start only the context and the frame pointer are there; a timer's callback gets three arguments.
        self.written = [False] * 11
        self.written[1] = self.written[10] = True
        self.saved: list[list[bool]] = []
        self.stack_written = bytearray(len(self.stack))
        self.started = False

    def _step(self, insns: tuple[Insn, ...], insn: Insn, row: Row) -> None:
        judge = self.judge
        if insns is not judge.program.insns:
            super()._step(insns, insn, row)
            self.written = [True] * 11
            return
        index = self.pc - 1
        if not self.started:
            self.started = True
            if index:
                self.written[1:4] = [True] * 3
        judge.steps += 1
        self._check_reads(index, insn, row)
        self._check_state(index)
        before = len(self.frames)
        filled = self._filled(index, insn, row)
        try:
            super()._step(insns, insn, row)
        except LoadFailed:
            self.written[0] = True
            raise
        except Faulted as stop:
            fact = judge.facts.get(index)
            judge.foreign |= fact is not None and fact.kind not in _PLACED and stop.fault is Fault.MEMORY
            judge.faults.append(stop.fault)
            raise
        for address, size in filled:
            self._mark(address, size)
        self._note_writes(index, insn, row, before)

    # ---- registers and stack that were never written

    def _check_reads(self, index: int, insn: Insn, row: Row) -> None:
        for register in _reads(index, insn, row, self):
            if not self.written[register]:
                raise BrokenPromise(f"instruction {index} reads r{register}, which was not written")

    def _filled(self, index: int, insn: Insn, row: Row) -> list[tuple[int, int]]:
        """Memory that a call counts as writing, whatever it really does there."""
        if row.kind is not Kind.CALL or insn.src != 0:
            return []
        found, arguments = [], helpers.BY_ID[insn.imm].arg_types
        for number, argument in enumerate(arguments, 1):
            if not (argument.uninit or argument.write):
                continue
            address = self.regs[number]
            if argument.kind == "dynptr":
                found.append((address, 16))
            elif argument.kind == "fixed":
                found.append((address, argument.size))
            elif argument.kind == "value" and self.world is not None:
                found.append((address, self.world.map_of(self.regs[1]).value_size))
            elif number < len(arguments) and arguments[number].kind.startswith("size"):
                found.append((address, self.regs[number + 1]))
        return found

    def _note_writes(self, index: int, insn: Insn, row: Row, before: int) -> None:
        written = self.written
        kind = row.kind
        if kind in (Kind.ALU, Kind.SWAP, Kind.LOAD_IMM64, Kind.LOAD):
            written[insn.dst] = True
        elif kind is Kind.ATOMIC:
            if row.operation == "LOAD_ACQ":
                written[insn.dst] = True
        elif kind is Kind.PACKET and before == len(self.frames):
            written[0:6] = [True] + [False] * 5
        elif kind is Kind.CALL and before == len(self.frames):
            written[0:6] = [_answers(self, index, insn)] + [False] * 5

    def _enter(self, walk: Walk | None, target: int) -> None:
        self.saved.append(self.written)
        at = self.regs[10] & 0xFFFFFFFF
        super()._enter(walk, target)
        self.stack_written[at : at + FRAME] = bytes(FRAME)
        arguments = self.written[1:6] if walk is None else [True] * 5
        self.written = [False, *arguments, False, False, False, False, True]

    def _round(self, answer: int | None) -> None:
        walk = self.frames[-1].walk
        super()._round(answer)
        if self.frames and self.frames[-1].walk is walk:
            # A new round of a callback: its registers are not those of the last one.
            self.written = [False, True, True, True, True, True, False, False, False, False, True]

    def _back(self, value: int) -> None:
        answered = self.written[0] or self.frames[-1].walk is not None
        super()._back(value)
        self.written = self.saved.pop()
        self.written[0:6] = [answered] + [False] * 5

    def _stack_range(self, address: int, size: int) -> range | None:
        offset = address & 0xFFFFFFFF
        return range(offset, offset + size) if address >> 32 == STACK and offset + size <= len(self.stack) else None

    def _require_written(self, address: int, size: int, what: str) -> None:
        bytes_ = self._stack_range(address, size)
        if bytes_ is not None and self.judge.strict and not all(self.stack_written[at] for at in bytes_):
            raise BrokenPromise(f"{what} reads stack bytes that were not written: {address:#x}+{size}")

    def _mark(self, address: int, size: int) -> None:
        for at in self._stack_range(address, size) or ():
            self.stack_written[at] = 1

    def read(self, address: int, size: int, need: int = READ) -> bytes:
        # A kernel function takes strings from anywhere and copes with what is not there.
        if need == READ and self.insns[self.pc - 1].src == 0:
            self._require_written(address, size, "a helper")
        return super().read(address, size, need)

    def write(self, address: int, data: bytes) -> None:
        super().write(address, data)
        self._mark(address, len(data))

    # ---- accesses

    def _memory(self, insn: Insn, row: Row) -> None:
        loads = row.operation in ("LDX", "LDSX")
        address = self.regs[insn.src if loads else insn.dst] + insn.off & U64
        self._check_fact(self.pc - 1, address, row.size)
        if loads:
            self._require_written(address, row.size, f"instruction {self.pc - 1}")
        super()._memory(insn, row)
        if not loads:
            self._mark(address, row.size)

    def _atomic(self, insn: Insn, row: Row) -> None:
        pointer = self.regs[insn.src if row.operation == "LOAD_ACQ" else insn.dst]
        address = pointer + insn.off & U64
        self._check_fact(self.pc - 1, address, row.size)
        if row.operation != "STORE_REL":
            self._require_written(address, row.size, f"instruction {self.pc - 1}")
        super()._atomic(insn, row)
        self._mark(address, row.size)

    def _check_fact(self, index: int, address: int, size: int) -> None:
        if self.insns is not self.judge.program.insns:
            return
        fact: Access | None = self.judge.facts.get(index)
        if fact is None:
            raise BrokenPromise(f"instruction {index} is executed, but no fact is known of it")
        if fact.kind not in _PLACED:
            return
        if not fact.in_bounds or fact.size != size:
            raise BrokenPromise(f"instruction {index} accesses {size} bytes, the fact is {fact}")
        places = self._places(fact.kind, address, size)
        if not places or (fact.offset is not None and fact.offset not in places):
            raise BrokenPromise(f"instruction {index} accesses {address:#x}+{size}, the fact is {fact}")

    def _places(self, kind: str, address: int, size: int) -> list[int]:
        """Offsets that the address may be at in memory of a kind; empty where it is in no such memory."""
        region, offset = address >> 32, address & 0xFFFFFFFF
        if kind == "stack":
            tops = [FRAME * (n + 1) for n in range(len(self.frames) + 1)]
            return [offset - top for top in tops if region == STACK and top - FRAME <= offset and offset + size <= top]
        if kind == "ctx":
            return [offset] if region == CONTEXT else []
        if kind == "map_value":
            return self._value_places(region, offset, size)
        if kind == "map_key":
            return [offset % (len(self.scratch) // ALL_FRAMES)] if region == SCRATCH else []
        if kind == "mem":
            return [] if self.world is None or not self._there(address, size) else [_Anywhere(offset)]
        return []

    def _value_places(self, region: int, offset: int, size: int) -> list[int]:
        found = self.world.maps.get(region) if self.world is not None else None
        if found is None:
            return []
        stride = int(found.row[map_layout.STRIDE])
        place = offset % stride
        return [place] if place + size <= found.spec.value_size else []

    def _there(self, address: int, size: int) -> bool:
        for need in (READ, WRITE):
            with contextlib.suppress(Faulted):
                self._place(address, size, need)
                return True
        return False

    # ---- states

    def _check_state(self, index: int) -> None:
        judge = self.judge
        if judge.recorded is None or any(frame.insns is not judge.program.insns for frame in self.frames):
            return
        regs = [[0] * 6 + frame.saved[:4] for frame in self.frames]
        regs.append(self.regs[:10])
        calls = [frame.pc - 1 for frame in self.frames]
        why = explain(judge.recorded, index, View(regs, calls, bytes(self.stack[: FRAME * 9]), self._there))
        if why is not None:
            raise BrokenPromise(f"instruction {index}: {why}")
        judge.judged += 1


class _Anywhere(int):
    """An offset into memory that begins somewhere else: equal to whatever the fact says."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    __hash__ = int.__hash__


def _answers(machine: Supervised, index: int, insn: Insn) -> bool:
    """Whether a call leaves something in r0."""
    if insn.src == 0:
        return helpers.BY_ID[insn.imm].ret != "void"
    return _KFUNCS[machine.judge.program.kfuncs[index]].ret != "void"


def _reads(index: int, insn: Insn, row: Row, machine: Supervised) -> tuple[int, ...]:
    """Registers that an instruction reads."""
    kind = row.kind
    if kind is Kind.ALU:
        moves = row.operation.startswith("MOV")
        return (*(() if moves else (insn.dst,)), *((insn.src,) if row.reg else ()))
    if kind is Kind.SWAP:
        return (insn.dst,)
    if kind is Kind.BRANCH:
        return (insn.dst, insn.src) if row.reg else (insn.dst,)
    if kind is Kind.LOAD:
        return (insn.src,)
    if kind is Kind.STORE:
        return (insn.dst, insn.src) if row.reg else (insn.dst,)
    if kind is Kind.ATOMIC:
        return (insn.src,) if row.operation == "LOAD_ACQ" else (insn.dst, insn.src)
    if kind is Kind.PACKET:
        return (6, insn.src) if row.operation == "IND" else (6,)
    if kind is Kind.CALL and insn.src == 0:
        return tuple(range(1, 1 + len(helpers.BY_ID[insn.imm].arg_types)))
    if kind is Kind.CALL and insn.src == 2:
        params = _KFUNCS[machine.judge.program.kfuncs[index]].params
        return tuple(number for number, param in enumerate(params, 1) if param.kind not in ("ign", "prog"))
    if kind is Kind.EXIT and not machine.frames:
        return (0,)
    return ()


def installed(monkeypatch: Any, judge: Judge) -> None:
    """Let the reference engine run under this judge."""
    Supervised.judge = judge
    monkeypatch.setattr(reference_extended, "Machine", Supervised)

