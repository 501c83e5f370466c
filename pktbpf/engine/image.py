"""A program as the interpreter reads it: one packed 64-bit word per slot, numbered as in the program.

Word: bits 0-7 operation (bit 7: the second operand is the immediate; in a load: where it leads nowhere it gives 0),
8-11 dst, 12-15 src, 16-31 signed distance, 32-63 immediate. The slot after a 64-bit immediate holds that value. Three
words follow the program, see TAIL. Whatever is malformed becomes a word that faults when it is reached, so that the
loop itself never has to check its pc.

Frequent sequences of translated classic filters are fused in place: the first word becomes a combined operation that
also reads the following, untouched words, so jumps into the middle still work and numbers stay.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.kfuncs import NAMES as KFUNC_NUMBERS
from pktbpf.abi.kfuncs import NUMBERS as KFUNCS
from pktbpf.abi.limits import CB_OFFSET, CB_SIZE, REG_FP, STACK_SIZE
from pktbpf.isa import extended
from pktbpf.isa.extended import Insn, Kind, Row
from pktbpf.program import Program

IMMEDIATE = 0x80
ZERO = 11  # a register of the loop that no instruction can name; it stays 0

_ALU = ("ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "MOD", "XOR", "MOV", "ARSH", "SDIV", "SMOD", "NEG",
        "MOVSX8", "MOVSX16", "MOVSX32")  # fmt: skip
_JUMP = ("JEQ", "JGT", "JGE", "JSET", "JNE", "JSGT", "JSGE", "JLT", "JLE", "JSLT", "JSLE")

# Every operation of the loop; its number is its place here and must stay below 128.
OPERATIONS: tuple[str, ...] = (
    "FAULT_OPCODE", "FAULT_JUMP", "RETURN_ZERO", "EXIT", "CALL_HELPER", "CALL_LOCAL", "JA", "JA32", "MAY_GOTO",
    "LD_IMM64",
    *(f"{name}64" for name in _ALU), *(f"{name}32" for name in _ALU[:-1]),
    *(f"{name}64" for name in _JUMP), *(f"{name}32" for name in _JUMP),
    "MASK", "SWAP16", "SWAP32", "SWAP64", "LDX", "LDSX", "ST", "STX", "ATOMIC",
    "PACKET", "PACKET_JUMP", "RETURN_IMM", "HEADER_LENGTH",
)  # fmt: skip
OP: dict[str, int] = {name: number for number, name in enumerate(OPERATIONS)}

# Helpers whose answer depends on nothing but memory, bytes and lengths: map calls, tail calls, loops, packet bytes.
NO_METADATA = frozenset({1, 2, 3, 7, 12, 26, 87, 88, 89, 93, 94, 105, 106, 130, 131, 132, 133, 134, 164, 181, 182})

# Slots after the program: running off its end, a failed packet load, and the end of a fused return.
TAIL = ("FAULT_JUMP", "RETURN_ZERO", "EXIT")


@dataclass(frozen=True, slots=True)
class Image:
    """words: uint64[n + 3]. entry: first slot to run. stack_depth: bytes below the frame pointer that it may touch.
    calls: numbers of the helpers it calls. needs_meta: verdicts may depend on more than bytes and lengths.
    touches_cb: it may read or write the context's cb, which is then cleared for each packet."""

    words: NDArray[np.uint64]
    entry: int
    stack_depth: int
    calls: frozenset[int]
    needs_meta: bool
    touches_cb: bool


def build(program: Program, *, fuse: bool = True, probes: Collection[int] = ()) -> Image:
    """Pack a program. fuse=False keeps one operation per instruction (coverage, tracing). probes: slots of loads that
    give 0 where their pointer leads nowhere."""
    insns = numbered(program)
    words = np.zeros(len(insns) + len(TAIL), dtype=np.uint64)
    second = _second_slots(insns)
    for pc, insn in enumerate(insns):
        if pc in second:
            continue
        words[pc] = _pack(insns, pc, insn, second)
        if pc not in program.kfuncs and insn.code == 0x85 and not insn.src and insn.imm in KFUNC_NUMBERS:
            words[pc] = OP["FAULT_OPCODE"]  # a number of this process only, which no program may write
        if extended.is_wide(insn) and pc + 1 in second:
            words[pc + 1] = (insn.imm & 0xFFFFFFFF) | (insns[pc + 1].imm & 0xFFFFFFFF) << 32
    for pc in probes:
        if words[pc] & 0x7F in (OP["LDX"], OP["LDSX"]):
            words[pc] |= np.uint64(IMMEDIATE)
    for number, name in enumerate(TAIL):
        words[len(insns) + number] = OP[name]
    entry = _fuse_all(insns, words) if fuse else 0
    return _describe(insns, words, entry)


def numbered(program: Program) -> tuple[Insn, ...]:
    """The instructions with calls of kernel functions as calls of a helper with their number in pktbpf.abi.kfuncs."""
    if not program.kfuncs:
        return program.insns
    insns = list(program.insns)
    for slot, name in program.kfuncs.items():
        if name in KFUNCS:
            insns[slot] = Insn(insns[slot].code, imm=KFUNCS[name])
    return tuple(insns)


def _describe(insns: tuple[Insn, ...], words: NDArray[np.uint64], entry: int) -> Image:
    rows = [(insn, row) for insn in insns if (row := insn.row) is not None]
    calls = frozenset(insn.imm for insn, row in rows if row.name == "CALL_HELPER")
    needs_meta = _reads_context(rows) or not calls <= NO_METADATA
    return Image(words, entry, _stack_depth(rows), calls, needs_meta, _touches_cb(rows))


def _reads_context(rows: list[tuple[Insn, Row]]) -> bool:
    """Whether a load may read the context at all, its length at offset 0 apart, which is no metadata.

    Registers that may hold the context are those it is ever copied to from r1; if it is spilled, every load counts.
    """
    holders = {1}
    while True:
        copies = {i.dst for i, row in rows if row.name == "MOV64_REG" and i.src in holders}
        if copies <= holders:
            break
        holders |= copies
    spilled = any(row.kind is Kind.STORE and i.src in holders and row.name == "STX_DW" for i, row in rows)
    moved = any(row.kind is Kind.ALU and row.operation in ("ADD", "SUB") and i.dst in holders for i, row in rows)
    loads = [i for i, row in rows if row.kind is Kind.LOAD or row.operation == "LOAD_ACQ"]
    return any(spilled or (i.src in holders and (i.off != 0 or moved)) for i in loads)


def _touches_cb(rows: list[tuple[Insn, Row]]) -> bool:
    """Whether an access may fall into cb: an offset inside it on any register but the frame pointer. The verifier
    allows no arithmetic on the context; for unchecked programs the engine assumes the worst."""
    accesses = [
        (i.off, i.src if row.kind is Kind.LOAD else i.dst)
        for i, row in rows
        if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)
    ]
    return any(register != REG_FP and CB_OFFSET - 8 < off < CB_OFFSET + CB_SIZE for off, register in accesses)


def _stack_depth(rows: list[tuple[Insn, Row]]) -> int:
    """Bytes of its stack that a program can reach, in whole words; only those are cleared for each packet.

    The lowest constant added to a pointer plus the lowest offset of an access bound it, unless pointers are moved by
    registers. Clearing all 512 bytes costs about 30 ns a packet.
    """
    accesses = [insn.off for insn, row in rows if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC)]
    if not any(REG_FP in (insn.src, insn.dst) for insn, _ in rows):
        return 0
    moved = any(row.name in ("ADD64_REG", "SUB64_REG", "SUB64_IMM") for _, row in rows)
    constants = [insn.imm for insn, row in rows if row.name == "ADD64_IMM" and insn.imm < 0]
    lowest = -sum(constants) - min([*accesses, 0])
    return STACK_SIZE if moved or lowest > STACK_SIZE else (lowest + 7) // 8 * 8


def _second_slots(insns: tuple[Insn, ...]) -> frozenset[int]:
    """Slots that are the upper half of a 64-bit immediate; no jump may end there."""
    found = set()
    index = 0
    while index < len(insns):
        if extended.is_wide(insns[index]):
            found.add(index + 1)
            index += 1
        index += 1
    return frozenset(i for i in found if i < len(insns))


def word(operation: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> int:
    """Pack one word."""
    return operation | dst << 8 | src << 12 | (off & 0xFFFF) << 16 | (imm & 0xFFFFFFFF) << 32


def operation_of(row: Row) -> int:
    """The loop's operation for a row of the instruction table, with the immediate bit."""
    immediate = 0 if row.reg else IMMEDIATE
    match row.kind:
        case Kind.ALU | Kind.BRANCH:
            return OP[f"{row.operation}{row.bits}"] | immediate
        case Kind.SWAP:
            return OP["MASK"] if row.operation == "LE" else OP[f"SWAP{row.bits}"]
        case Kind.LOAD | Kind.STORE:
            return OP[row.operation]
        case Kind.ATOMIC:
            return OP["ATOMIC"]
        case Kind.CALL:
            return OP["CALL_HELPER"] if row.operation == "HELPER" else OP["CALL_LOCAL"]
        case Kind.LOAD_IMM64:
            return OP["LD_IMM64"]
        case Kind.PACKET:
            return OP["PACKET"]
        case Kind.JUMP | Kind.MAY_GOTO | Kind.EXIT:
            return OP[row.name]


def _pack(insns: tuple[Insn, ...], pc: int, insn: Insn, second: frozenset[int]) -> int:
    row = insn.row
    fault = OP["FAULT_OPCODE"]
    if row is None or row.name == "CALL_KFUNC" or insn.dst > REG_FP or insn.src > REG_FP:
        return fault
    if row.kind is Kind.LOAD_IMM64 and pc + 1 not in second:
        return fault
    if row.operation == "LDSX" and row.bits == 64:
        return fault
    if row.kind in (Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO) or row.name == "CALL_LOCAL":
        distance = insn.imm if row.name in ("JA32", "CALL_LOCAL") else insn.off
        target = pc + 1 + distance
        if not 0 <= target < len(insns) or target in second:
            return OP["FAULT_JUMP"]
    operation = operation_of(row)
    if row.kind in (Kind.LOAD, Kind.STORE):
        # size goes where the fields leave room: STX has a free imm, LDX too, ST none, so bits 0-1 of `src` serve it
        return _pack_memory(row, insn, operation)
    if row.kind is Kind.ATOMIC:
        return word(operation, insn.dst, insn.src, insn.off, insn.imm | row.size << 16)
    if row.kind is Kind.PACKET:
        return word(operation, *_packet_operands(insn, row), 0, insn.imm)
    if row.name == "MAY_GOTO" or row.kind is Kind.SWAP:
        return word(operation, insn.dst, 0, insn.off, row.bits)
    return word(operation, insn.dst, insn.src, insn.off, insn.imm)


def _packet_operands(insn: Insn, row: Row) -> tuple[int, int]:
    """(dst, src) of a packet load's word: a 32-bit load shifted right by 8 * (dst >> 1) leaves the bytes wanted, and
    the offset is imm plus src, a register that stays zero for an absolute one. So one branch serves all six."""
    return (4 - row.size) << 1, insn.src if row.operation == "IND" else ZERO


def _pack_memory(row: Row, insn: Insn, operation: int) -> int:
    if row.operation == "ST":
        return word(operation, insn.dst, row.size, insn.off, insn.imm)
    return word(operation, insn.dst, insn.src, insn.off, row.size)


# --- fusing -------------------------------------------------------------------------------------------------------

_PROLOGUE = (Insn(0xB4, 0), Insn(0xB4, 7), Insn(0xBF, 6, 1))
_MSH_TAIL = (
    Insn(0x54, 0, imm=15), Insn(0x64, 0, imm=2), Insn(0xBF, 2, 7), Insn(0xBF, 7, 0), Insn(0xBF, 0, 2),
)  # fmt: skip


def _fuse_all(insns: tuple[Insn, ...], words: NDArray[np.uint64]) -> int:
    plain = [int(value) & 0x7F for value in words]
    for pc in range(len(insns) - 1):
        fused = _fused(insns, plain, pc)
        if fused is not None:
            words[pc] = fused
    return 3 if insns[:3] == _PROLOGUE and len(insns) > 3 else 0


def _fused(insns: tuple[Insn, ...], plain: list[int], pc: int) -> int | None:
    insn, following = insns[pc], insns[pc + 1]
    if plain[pc] == OP["MOV32"] and insn.code == 0xB4 and insn.dst == 0 and plain[pc + 1] == OP["EXIT"]:
        return word(OP["RETURN_IMM"], imm=insn.imm)
    if insn == Insn(0xBF, 7, 0) and following.imm >= 0 and following == Insn(0x30, imm=following.imm):
        return word(OP["HEADER_LENGTH"], imm=following.imm) if insns[pc + 2 : pc + 7] == _MSH_TAIL else None
    if plain[pc] == OP["PACKET"] and insn.imm >= 0:
        return _fused_compare(insns, plain, pc)
    return None


def _fused_compare(insns: tuple[Insn, ...], plain: list[int], pc: int) -> int | None:
    """A packet load and the equality test after it. Bit 0 of dst tells the sense (1: JEQ, 0: JNE); the distance of
    the load's word leads past a JA that follows the test, 0 where none does."""
    insn, jump = insns[pc], insns[pc + 1]
    if plain[pc + 1] not in (OP["JEQ64"], OP["JNE64"]) or jump.code & 0x08 or jump.dst or jump.imm < 0 or jump.off < 0:
        return None
    past = 0
    if pc + 2 < len(insns) and plain[pc + 2] == OP["JA"] and 0 <= insns[pc + 2].off < 0x7FFE:
        past = insns[pc + 2].off + 1
    row = insn.row
    assert row is not None, "only packet loads come here"
    dst, src = _packet_operands(insn, row)
    return word(OP["PACKET_JUMP"], dst | (jump.code == 0x15), src, past, insn.imm)
