"""Which rule checks an instruction: chosen once, by opcode, before the walk begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pktbpf.isa.extended import Insn
from pktbpf.verifier import alu, branches, calls, functions, kfuncs, scalar, transfers
from pktbpf.verifier.code import Op
from pktbpf.verifier.errors import invalid
from pktbpf.verifier.state import SCALAR, Reg

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

_ALU = ("ADD", "SUB", "MUL", "DIV", "OR", "AND", "LSH", "RSH", "NEG", "MOD", "XOR", "MOV", "ARSH", "END")
_JUMP = ("JA", "EQ", "GT", "GE", "SET", "NE", "SGT", "SGE", "CALL", "EXIT", "LT", "LE", "SLT", "SLE", "MAY_GOTO")
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


def _second_half(walk: Walk, op: Op) -> None:
    invalid("unknown insn class 0")


def _alu(op: Op, insn: Insn, precise: bool) -> None:
    op.bits = 64 if insn.code & 7 == 7 else 32
    op.name = _ALU[insn.code >> 4]
    if op.name == "NEG":
        op.run = alu.negate
    elif op.name == "END":
        op.run = alu.swap
    elif op.name == "MOV":
        op.run = alu.move_register if op.reg else alu.move_immediate
        value = insn.imm if op.bits == 64 else insn.imm & 0xFFFFFFFF
        op.constant = Reg(SCALAR, v=scalar.exact(value), precise=precise)
    else:
        op.run = alu.binary
        op.sums, op.divides = op.name in ("ADD", "SUB"), op.name in ("DIV", "MOD")
        op.shifts, op.masks = op.name in ("LSH", "RSH", "ARSH"), op.name in ("AND", "OR")
        op.constant = Reg(SCALAR, v=scalar.exact(insn.imm))


def _jump(op: Op, insn: Insn) -> None:
    op.bits = 64 if insn.code & 7 == 5 else 32
    op.name = _JUMP[insn.code >> 4]
    if op.name == "JA":
        op.run = branches.jump
    elif op.name == "MAY_GOTO":
        op.run = branches.may_goto
    elif op.name == "EXIT":
        op.run = functions.leave
        op.touches = True
    elif op.name == "CALL":
        op.run = {1: functions.local_call, 2: kfuncs.call}.get(insn.src, calls.helper)
        op.touches = True
    else:
        op.run = branches.conditional
        op.constant = Reg(SCALAR, v=scalar.exact(insn.imm))


def _decode(insn: Insn, precise: bool) -> Op:
    op = Op(insn, _second_half)
    kind, mode = insn.code & 7, insn.code & 0xE0
    if kind in (4, 7):
        _alu(op, insn, precise)
    elif kind in (5, 6):
        _jump(op, insn)
    elif insn.code == 0x18:
        op.run = functions.wide_immediate
    elif kind == 0 and mode in (0x20, 0x40):
        op.run = functions.packet_load
    elif kind == 1:
        op.run, op.size = transfers.load, _SIZES[insn.code & 0x18]
        op.name = "LDSX" if mode == 0x80 else "LDX"
    elif kind in (2, 3):
        op.size = _SIZES[insn.code & 0x18]
        op.touches = True
        op.run = transfers.store_immediate if kind == 2 else transfers.atomic if mode == 0xC0 else transfers.store
    return op


def decode(insns: tuple[Insn, ...], precise: bool) -> list[Op]:
    """One Op per slot; `precise` is how constants begin without CAP_BPF."""
    return [_decode(insn, precise) for insn in insns]
