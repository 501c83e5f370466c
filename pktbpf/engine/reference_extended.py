"""The extended machine in plain Python, one rule per kind of instruction (RFC 9669).

Registers are Python ints modulo 2**64. Memory is named regions: a pointer is a region number in its upper half and an
offset in its lower, so every access is checked by construction. The readable witness of the compiled loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, assert_never

from pktbpf.abi.limits import MAX_FRAMES, REG_FP, STACK_SIZE
from pktbpf.engine.base import Fault
from pktbpf.engine.control_helpers import ALL_FRAMES
from pktbpf.engine.memory import WORK
from pktbpf.engine.reference_packet import Faulted, LoadFailed, Packet
from pktbpf.engine.reference_world import PACKET, READ, SCRATCH, WRITE, Answer, Walk, World
from pktbpf.isa.extended import Insn, Kind, Row
from pktbpf.program import INTERNAL_NAMES, Program

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
STACK, CONTEXT = 1, 2
TAIL_CALL = 12
_MAY_GOTO_LIMIT = 0x7FFFFF


def signed(value: int, bits: int) -> int:
    """The low `bits` of value as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def _sdiv(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return -quotient if (a < 0) != (b < 0) else quotient


def _arithmetic(operation: str, a: int, b: int, bits: int) -> int:
    """a operation b on unsigned numbers of `bits`; the caller masks the result."""
    sa, sb = signed(a, bits), signed(b, bits)
    shift = b & (bits - 1)
    match operation:
        case "ADD":
            return a + b
        case "SUB":
            return a - b
        case "MUL":
            return a * b
        case "DIV":
            return a // b if b else 0
        case "MOD":
            return a % b if b else a
        case "SDIV":
            return _sdiv(sa, sb) if b else 0
        case "SMOD":
            return sa - sb * _sdiv(sa, sb) if b else a
        case "OR":
            return a | b
        case "AND":
            return a & b
        case "XOR":
            return a ^ b
        case "LSH":
            return a << shift
        case "RSH":
            return a >> shift
        case "ARSH":
            return sa >> shift
        case "NEG":
            return -a
        case "MOV":
            return b
        case "MOVSX8" | "MOVSX16" | "MOVSX32":
            return signed(b, int(operation[5:]))
    raise AssertionError(f"no rule for {operation}")


def compare(operation: str, a: int, b: int, bits: int) -> bool:
    """Whether a branch on unsigned a, b of `bits` is taken."""
    sa, sb = signed(a, bits), signed(b, bits)
    tests = {
        "JEQ": a == b, "JNE": a != b, "JSET": bool(a & b), "JGT": a > b, "JGE": a >= b, "JLT": a < b, "JLE": a <= b,
        "JSGT": sa > sb, "JSGE": sa >= sb, "JSLT": sa < sb, "JSLE": sa <= sb,
    }  # fmt: skip
    return tests[operation]


class Exited(Exception):
    """The program's end, with r0."""

    def __init__(self, value: int):
        self.value = value & U32
        super().__init__(str(value))


class Frame(NamedTuple):
    """What a return gives back: r6-r10, the place, the program; and the walk whose callback runs, if any."""

    saved: list[int]
    pc: int
    insns: tuple[Insn, ...]
    program: Program | None
    walk: Walk | None = None
    target: int = 0
    limit: int = MAX_FRAMES - 1


@dataclass(slots=True)
class Machine:
    """State while one packet runs. helper: (number, registers 1-5) -> r0 or a walk through callbacks, raising Faulted
    for an unknown number. program, world: what maps and functions are named by, see pktbpf.engine.reference_world.
    now: nanoseconds since 1970."""

    packet: Packet
    helper: Callable[[int, list[int]], Answer]
    budget: int
    regs: list[int] = field(default_factory=lambda: [0] * 16)
    stack: bytearray = field(default_factory=lambda: bytearray(STACK_SIZE * ALL_FRAMES))
    cb: bytearray = field(default_factory=lambda: bytearray(20))
    frames: list[Frame] = field(default_factory=list)
    pc: int = 0
    may_goto: int = 0
    program: Program | None = None
    world: World | None = None
    insns: tuple[Insn, ...] = ()
    tail_calls: int = 0
    limit: int = MAX_FRAMES - 1  # how deep the running program's calls may go
    target: int = 0
    scratch: bytearray = field(default_factory=bytearray)
    now: int = 0
    cpu: int = 0
    work: int = 0  # bytes that helpers went through, see memory.charge

    def run(self, insns: tuple[Insn, ...]) -> int:
        """The verdict, u32. Raises Faulted."""
        try:
            for _ in self.steps(insns):
                pass
        except Exited as done:
            return done.value
        raise AssertionError("steps() ends by raising")

    def steps(self, insns: tuple[Insn, ...]) -> Iterator[int]:
        """Execute one instruction per step and yield its slot; ends by Exited or Faulted."""
        self.regs[1], self.regs[REG_FP] = CONTEXT << 32, (STACK << 32) + STACK_SIZE
        yield from self.go(insns)

    def go(self, insns: tuple[Insn, ...]) -> Iterator[int]:
        """steps() with registers and place as they are."""
        self.insns = insns
        while True:
            if not 0 <= self.pc < len(self.insns) or self.pc in second_slots(self.insns):
                raise Faulted(Fault.JUMP)
            self.budget -= 1
            if self.budget < 0:
                raise Faulted(Fault.BUDGET)
            number, insn = self.pc, self.insns[self.pc]
            row = insn.row
            self.pc += 1
            if row is None or insn.dst > REG_FP or insn.src > REG_FP:
                raise Faulted(Fault.OPCODE)
            try:
                self._step(self.insns, insn, row)
            except LoadFailed:
                self._leave(0)
            yield number

    def _step(self, insns: tuple[Insn, ...], insn: Insn, row: Row) -> None:
        match row.kind:
            case Kind.ALU:
                self._alu(insn, row)
            case Kind.SWAP:
                self._swap(insn, row)
            case Kind.LOAD_IMM64:
                if self.pc >= len(insns):
                    raise Faulted(Fault.OPCODE)
                low, high = insn.imm, insns[self.pc].imm
                if insn.src and self.world is not None and self.program is not None:
                    self.regs[insn.dst] = self.world.immediate(self.program, self.pc - 1, insn.src, low, high)
                else:
                    self.regs[insn.dst] = low & U32 | (high & U32) << 32
                self.pc += 1
            case Kind.PACKET:
                where = insn.imm + (self.regs[insn.src] if row.operation == "IND" else 0)
                self.regs[0] = self.packet.load(where, row.size)
            case Kind.LOAD | Kind.STORE:
                self._memory(insn, row)
            case Kind.ATOMIC:
                self._atomic(insn, row)
            case Kind.JUMP:
                self.pc = self._target(insns, insn.imm if row.bits == 32 else insn.off)
            case Kind.BRANCH:
                self._branch(insns, insn, row)
            case Kind.MAY_GOTO:
                target = self._target(insns, insn.off)
                self.may_goto += 1
                if self.may_goto > _MAY_GOTO_LIMIT:
                    self.pc = target
            case Kind.CALL:
                self._call(insns, insn, row)
            case Kind.EXIT:
                self._leave(self.regs[0])
            case _:
                assert_never(row.kind)

    def _operand(self, insn: Insn, row: Row) -> int:
        return self.regs[insn.src] if row.reg else insn.imm & U64

    def _alu(self, insn: Insn, row: Row) -> None:
        mask = (1 << row.bits) - 1
        a, b = self.regs[insn.dst] & mask, self._operand(insn, row) & mask
        self.regs[insn.dst] = _arithmetic(row.operation, a, b, row.bits) & mask

    def _swap(self, insn: Insn, row: Row) -> None:
        value = self.regs[insn.dst] & (1 << row.bits) - 1
        if row.operation != "LE":
            value = int.from_bytes(value.to_bytes(row.size, "little"), "big")
        self.regs[insn.dst] = value

    def _branch(self, insns: tuple[Insn, ...], insn: Insn, row: Row) -> None:
        mask = (1 << row.bits) - 1
        target = self._target(insns, insn.off)
        if compare(row.operation, self.regs[insn.dst] & mask, self._operand(insn, row) & mask, row.bits):
            self.pc = target

    def _target(self, insns: tuple[Insn, ...], distance: int) -> int:
        """Where a jump leads; a jump to nowhere faults whether it is taken or not."""
        target = self.pc + distance
        if not 0 <= target < len(insns) or target in second_slots(insns):
            raise Faulted(Fault.JUMP)
        return target

    def _place(self, address: int, size: int, need: int = READ) -> tuple[bytearray | memoryview, int]:
        """Memory behind a pointer; the context only where its bytes are plain memory (cb)."""
        region, offset = address >> 32, address & U32
        if region == STACK and offset + size <= len(self.stack):
            return self.stack, offset
        if region == CONTEXT:
            if offset >= 48 and offset + size <= 68:
                return self.cb, offset - 48
            raise Faulted(Fault.CONTEXT)
        if region == SCRATCH and need == READ and offset + size <= len(self.scratch):
            return self.scratch, offset
        if region == PACKET and need == READ and offset + size <= max(self.packet.captured, 0):
            return bytearray(self.packet.buffer[self.packet.base + offset : self.packet.base + offset + size]), 0
        found = self.world.memory(address, size, need) if self.world is not None else None
        if found is None:
            raise Faulted(Fault.MEMORY)
        return found, 0

    def read(self, address: int, size: int, need: int = READ) -> bytes:
        """Bytes that a helper is given a pointer to; none need no pointer."""
        if not size:
            return b""
        memory, at = self._whole(address, size, need)
        return bytes(memory[at : at + size])

    def write(self, address: int, data: bytes) -> None:
        """Put what a helper answers through a pointer."""
        if data:
            memory, at = self._whole(address, len(data), WRITE)
            memory[at : at + len(data)] = data

    def _whole(self, address: int, size: int, need: int) -> tuple[bytearray | memoryview, int]:
        try:
            return self._place(address, size, need)
        except Faulted:
            raise Faulted(Fault.MEMORY) from None

    def string(self, address: int, limit: int) -> bytes | None:
        """Up to `limit` bytes before the first NUL, as far as memory goes; None where there is none."""
        out = bytearray()
        while len(out) < limit:
            try:
                byte = self.read(address + len(out), 1)
            except Faulted:
                return bytes(out) if out else None
            if byte == b"\0":
                return bytes(out)
            out += byte
        return bytes(out)

    def peek(self, address: int, size: int) -> bytes | None:
        """read(), but None where it would fault."""
        try:
            return self.read(address, size)
        except Faulted:
            return None

    def scratch_offset(self) -> int:
        """Where the key or dynptr of the walk in the innermost frame lies in the scratch memory."""
        return (len(self.frames) - 1) * (len(self.scratch) // ALL_FRAMES)

    def enter_program(self, program: Program) -> None:
        """A tail call: the same frame, another program from its start."""
        self.program, self.insns, self.pc = program, program.insns, 0
        self.limit = len(self.frames) + MAX_FRAMES - 1
        self.regs[1] = CONTEXT << 32
        if self.world is not None:
            self.world.learn(program)

    def _memory(self, insn: Insn, row: Row) -> None:
        if row.operation in ("LDX", "LDSX"):
            address = self.regs[insn.src] + insn.off & U64
            if address >> 32 == CONTEXT:
                value = self.packet.context_load(address & U32, row.size, self.cb)
            else:
                value = self._load(address, row.size)
            self.regs[insn.dst] = signed(value, row.bits) & U64 if row.operation == "LDSX" else value
            return
        memory, at = self._place(self.regs[insn.dst] + insn.off & U64, row.size, WRITE)
        memory[at : at + row.size] = (self._operand(insn, row) & (1 << row.bits) - 1).to_bytes(row.size, "little")

    def _load(self, address: int, size: int) -> int:
        """Bytes at a pointer; 0 where a load of the kernel's memory leads nowhere."""
        try:
            memory, at = self._place(address, size)
        except Faulted:
            probes = self.world.probes.get(id(self.program), frozenset()) if self.world is not None else frozenset()
            if self.pc - 1 not in probes:
                raise
            return 0
        return int.from_bytes(memory[at : at + size], "little")

    def _atomic(self, insn: Insn, row: Row) -> None:
        pointer = self.regs[insn.src if row.operation == "LOAD_ACQ" else insn.dst]
        address = pointer + insn.off & U64
        if address >> 32 == CONTEXT:
            raise Faulted(Fault.CONTEXT)
        memory, at = self._place(address, row.size, READ | WRITE)
        old = int.from_bytes(memory[at : at + row.size], "little")
        mask = (1 << row.bits) - 1
        value = self.regs[insn.src] & mask
        match row.operation.removeprefix("FETCH_"):
            case "LOAD_ACQ":
                self.regs[insn.dst] = old
                return
            case "CMPXCHG":
                new = value if old == self.regs[0] & mask else old
                self.regs[0] = old
            case "XCHG" | "STORE_REL":
                new = value
            case operation:
                new = _arithmetic(operation, old, value, row.bits) & mask
        memory[at : at + row.size] = new.to_bytes(row.size, "little")
        if row.operation.startswith("FETCH_") or row.operation == "XCHG":
            self.regs[insn.src] = old

    def _call(self, insns: tuple[Insn, ...], insn: Insn, row: Row) -> None:
        if row.operation == "LOCAL":
            target = self._target(insns, insn.imm)
            if len(self.frames) >= self.limit:
                raise Faulted(Fault.DEPTH)
            self._enter(None, 0)
            self.pc = target
        elif row.operation == "HELPER" and insn.imm == TAIL_CALL and self.world is not None:
            self.world.tail_call(self, self.regs[2], self.regs[3])
        elif row.operation == "HELPER":
            answer = self.helper(insn.imm, self.regs[1:6])
            self._pay()
            if isinstance(answer, int):
                self.regs[0] = answer & U64
            else:
                self._enter(answer, self.target)
                self._round(None)
        elif self.program is not None and self.pc - 1 in self.program.kfuncs and self.world is not None:
            self.regs[0] = self.world.call_kernel(self, self.program.kfuncs[self.pc - 1]) & U64
            self._pay()
        else:
            raise Faulted(Fault.OPCODE)

    def _pay(self) -> None:
        self.budget -= self.work // WORK
        self.work = 0

    def internal(self, number: int, args: list[int]) -> int:
        """The internal helpers of translated classic programs."""
        name = INTERNAL_NAMES[number]
        if name == "dev_type":
            return self.packet.column("hatype") if self.packet.column("ifindex") > 0 else U64
        return self.packet.internal(name, args[1] & U32, args[2] & U32)

    def _enter(self, walk: Walk | None, target: int) -> None:
        """A frame with a cleared stack."""
        self.frames.append(Frame(self.regs[6:11], self.pc, self.insns, self.program, walk, target, self.limit))
        at = self.regs[REG_FP] & U32
        self.stack[at : at + STACK_SIZE] = bytes(STACK_SIZE)
        self.regs[REG_FP] += STACK_SIZE

    def _round(self, answer: int | None) -> None:
        """The walk of the innermost frame goes on: another callback, or its end."""
        frame = self.frames[-1]
        assert frame.walk is not None
        try:
            arguments = next(frame.walk) if answer is None else frame.walk.send(answer)
        except StopIteration as end:
            self._back(end.value)
            return
        self.regs[1 : 1 + len(arguments)] = arguments
        self.pc = frame.target

    def _back(self, value: int) -> None:
        frame = self.frames.pop()
        self.regs[0], self.regs[6:11], self.pc = value & U64, frame.saved, frame.pc
        self.insns, self.program, self.limit = frame.insns, frame.program, frame.limit

    def _leave(self, value: int) -> None:
        self.regs[0] = value
        if not self.frames:
            raise Exited(value)
        if self.frames[-1].walk is not None:
            self._round(value)
        else:
            self._back(value)


@functools.lru_cache(maxsize=64)
def second_slots(insns: tuple[Insn, ...]) -> frozenset[int]:
    """Upper halves of 64-bit immediates, where no instruction begins."""
    found, index = set(), 0
    while index < len(insns):
        if insns[index].code == 0x18:
            index += 1
            found.add(index)
        index += 1
    return frozenset(found)
