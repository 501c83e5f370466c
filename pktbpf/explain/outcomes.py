"""What a program can still come to from an instruction on: acceptance, rejection, or both, by its graph alone."""

from __future__ import annotations

from pktbpf.isa import extended
from pktbpf.isa.extended import Insn, Kind
from pktbpf.program import ClassicProgram, Program

BOTH = frozenset({True, False})
_TAIL_CALL = 12


def classic_outcomes(program: ClassicProgram) -> list[frozenset[bool]]:
    """Per instruction. Jumps go forward, so one pass from the end decides."""
    out: list[frozenset[bool]] = [frozenset()] * len(program.insns)
    for pc in range(len(program.insns) - 1, -1, -1):
        insn = program.insns[pc]
        row = insn.row
        assert row is not None, "the checks refuse unknown opcodes"
        if row.name == "RET_K":
            out[pc] = frozenset({insn.k != 0})
        elif row.name == "RET_A":
            out[pc] = BOTH
        elif row.branch:
            out[pc] = out[pc + 1 + insn.jt] | out[pc + 1 + insn.jf]
        else:
            out[pc] = out[pc + 1 + (insn.k if row.name == "JA" else 0)]
    return out


def extended_outcomes(program: Program, slot: int, accepts: bool) -> frozenset[bool]:
    """From `slot` on, r0 being non-zero (accepts) or zero there. A register of unknown value counts as both."""
    found: set[bool] = set()
    seen: set[tuple[int, bool | None]] = set()
    pending: list[tuple[int, bool | None]] = [(slot, accepts)]
    while pending and len(found) < 2:
        node = pending.pop()
        if node in seen or not 0 <= node[0] < len(program.insns):
            continue
        seen.add(node)
        ends, following = _edges(program.insns, *node)
        found |= ends
        pending += following
    return frozenset(found)


def _edges(
    insns: tuple[Insn, ...], pc: int, value: bool | None
) -> tuple[frozenset[bool], list[tuple[int, bool | None]]]:
    """Verdicts that the instruction may end with, and (slot, what r0 is) of those that may follow."""
    insn = insns[pc]
    row = insn.row
    if row is None:
        return frozenset({False}), []
    after = pc + (2 if extended.is_wide(insn) else 1)
    match row.kind:
        case Kind.EXIT:
            return (BOTH if value is None else frozenset({value})), []
        case Kind.JUMP:
            return frozenset(), [(after + (insn.imm if row.bits == 32 else insn.off), value)]
        case Kind.BRANCH | Kind.MAY_GOTO:
            return frozenset(), [(after, value), (after + insn.off, value)]
        case Kind.CALL:
            return (BOTH if insn.imm == _TAIL_CALL and not insn.src else frozenset()), [(after, None)]
        case Kind.PACKET:
            return frozenset(), [(after, None)]
    if insn.dst == 0 and row.kind in (Kind.ALU, Kind.SWAP, Kind.LOAD, Kind.LOAD_IMM64, Kind.ATOMIC):
        known = row.operation == "MOV" and not row.reg
        value = insn.imm != 0 if known else None
    return frozenset(), [(after, value)]
