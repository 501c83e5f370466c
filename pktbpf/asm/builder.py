"""Programs from Python: the macros of linux/filter.h (BPF_ALU64_IMM, BPF_LD_ABS, BPF_JMP_REG, ...) as functions.

Each function gives a Step on a row of `pktbpf.isa.extended`; `label` names a place; `build` puts them together:

    build([mov64_imm(R0, 2), ld_abs(H, 12), jmp_imm(JNE, R0, 0x800, "reject"), exit_(), label("reject"), ...])

Jump targets are labels or distances, helpers names or numbers, maps names that `build(maps=...)` resolves. Operands are
checked against their fields (ValueError); whether the program makes sense is the verifier's question.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import NUMBERS
from pktbpf.isa import fields
from pktbpf.isa.extended import BY_CODE, BY_NAME, Insn, Row
from pktbpf.isa.fields import (
    ADD,
    AND,
    ARSH,
    CMPXCHG,
    DIV,
    DW,
    FETCH,
    JEQ,
    JGE,
    JGT,
    JLE,
    JLT,
    JNE,
    JSET,
    JSGE,
    JSGT,
    JSLE,
    JSLT,
    LOAD_ACQ,
    LSH,
    MOD,
    MOV,
    MUL,
    OR,
    RSH,
    STORE_REL,
    SUB,
    XCHG,
    XOR,
    B,
    H,
    W,
)  # fmt: skip
from pktbpf.program import INTERNAL_HELPERS, KernelVariable, Program

__all__ = [
    "ADD",
    "AND",
    "ARSH",
    "BE",
    "BSWAP",
    "CMPXCHG",
    "DIV",
    "DW",
    "FETCH",
    "JEQ",
    "JGE",
    "JGT",
    "JLE",
    "JLT",
    "JNE",
    "JSET",
    "JSGE",
    "JSGT",
    "JSLE",
    "JSLT",
    "LE",
    "LOAD_ACQ",
    "LSH",
    "MOD",
    "MOV",
    "MUL",
    "OR",
    "R0",
    "R1",
    "R2",
    "R3",
    "R4",
    "R5",
    "R6",
    "R7",
    "R8",
    "R9",
    "R10",
    "RSH",
    "STORE_REL",
    "SUB",
    "XCHG",
    "XOR",
    "B",
    "H",
    "Step",
    "W",
    "alu32_imm",
    "alu32_reg",
    "alu64_imm",
    "alu64_reg",
    "atomic_op",
    "bswap",
    "build",
    "call",
    "call_kfunc",
    "call_local",
    "emit",
    "endian",
    "exit_",
    "ja",
    "ja32",
    "jmp32_imm",
    "jmp32_reg",
    "jmp_imm",
    "jmp_reg",
    "label",
    "ld_abs",
    "ld_func",
    "ld_imm64",
    "ld_ind",
    "ld_ksym",
    "ld_map",
    "ld_map_value",
    "ldsx_mem",
    "ldx_mem",
    "may_goto",
    "mov32_imm",
    "mov32_reg",
    "mov64_imm",
    "mov64_reg",
    "movsx32_reg",
    "movsx64_reg",
    "neg32",
    "neg64",
    "raw",
    "sdiv_imm",
    "sdiv_reg",
    "smod_imm",
    "smod_reg",
    "st_mem",
    "stx_mem",
]  # fmt: skip

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)
LE, BE, BSWAP = "LE", "BE", "BSWAP"

Target = str | int  # a label, or a distance in slots from the next instruction


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction before its place is known. field: which of off and imm the target goes to. map: name of the map
    that a 64-bit immediate names. upper: its second slot's imm. kfunc: name of the kernel function called. variable:
    the kernel's variable whose address is taken."""

    insn: Insn
    target: str | None = None
    field: str = "off"
    map: str | None = None
    upper: int | None = None
    kfunc: str | None = None
    variable: KernelVariable | None = None

    @property
    def row(self) -> Row | None:
        """The operation."""
        return self.insn.row


@dataclass(frozen=True, slots=True)
class Label:
    """A name for the instruction after it."""

    name: str


def label(name: str) -> Label:
    """Names the place of the next instruction."""
    return Label(name)


def raw(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Step:
    """BPF_RAW_INSN: any five fields; imm may be given unsigned."""
    return Step(_insn(code, dst, src, off, imm))


def _insn(code: int, dst: int, src: int, off: int, imm: int) -> Insn:
    if not 0 <= code <= 255:
        raise ValueError(f"opcode {code} is not in 0..255")
    for name, value in (("dst", dst), ("src", src)):
        if not 0 <= value <= 15:
            raise ValueError(f"{name} register {value} is not in 0..15")
    if not -(1 << 15) <= off < 1 << 15:
        raise ValueError(f"offset {off} does not fit in 16 signed bits")
    return Insn(code, dst, src, off, _signed32(imm))


def _signed32(value: int) -> int:
    if not -(1 << 31) <= value < 1 << 32:
        raise ValueError(f"immediate {value} does not fit in 32 bits; use ld_imm64")
    return value - (1 << 32) if value >= 1 << 31 else value


def emit(row: Row | str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Step:
    """An instruction of a row, or of the row with this name; what the row fixes need not be given."""
    row = BY_NAME[row] if isinstance(row, str) else row
    values = [
        fixed if fixed is not None else given for fixed, given in ((row.src, src), (row.off, off), (row.imm, imm))
    ]
    return Step(_insn(row.code, dst, *values))


def _plain(code: int) -> Row:
    """The row of an opcode whose operation no other field selects."""
    rows = BY_CODE.get(code, ())
    if not rows:
        raise ValueError(f"no operation has the opcode {code:#04x}")
    return rows[-1]


def _jump(step: Step, target: Target, field: str = "off") -> Step:
    if isinstance(target, str):
        return Step(step.insn, target, field)
    value = _insn(0, 0, 0, target, 0).off if field == "off" else _signed32(target)
    return Step(step.insn._replace(**{field: value}))


def alu64_imm(op: int, dst: int, imm: int) -> Step:
    """BPF_ALU64_IMM(op, dst, imm): op is ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, MOD, XOR, MOV or ARSH."""
    return emit(_plain(fields.ALU64 | op | fields.K), dst, imm=imm)


def alu64_reg(op: int, dst: int, src: int) -> Step:
    """BPF_ALU64_REG(op, dst, src)."""
    return emit(_plain(fields.ALU64 | op | fields.X), dst, src)


def alu32_imm(op: int, dst: int, imm: int) -> Step:
    """BPF_ALU32_IMM(op, dst, imm)."""
    return emit(_plain(fields.ALU | op | fields.K), dst, imm=imm)


def alu32_reg(op: int, dst: int, src: int) -> Step:
    """BPF_ALU32_REG(op, dst, src)."""
    return emit(_plain(fields.ALU | op | fields.X), dst, src)


def mov64_imm(dst: int, imm: int) -> Step:
    """BPF_MOV64_IMM(dst, imm): sign-extended."""
    return emit("MOV64_IMM", dst, imm=imm)


def mov64_reg(dst: int, src: int) -> Step:
    """BPF_MOV64_REG(dst, src)."""
    return emit("MOV64_REG", dst, src)


def mov32_imm(dst: int, imm: int) -> Step:
    """BPF_MOV32_IMM(dst, imm): the upper half becomes zero."""
    return emit("MOV32_IMM", dst, imm=imm)


def mov32_reg(dst: int, src: int) -> Step:
    """BPF_MOV32_REG(dst, src)."""
    return emit("MOV32_REG", dst, src)


def movsx64_reg(dst: int, src: int, bits: int) -> Step:
    """BPF_MOVSX64_REG: sign-extending move of the low 8, 16 or 32 bits."""
    return emit(f"MOVSX{bits}_64_REG", dst, src)


def movsx32_reg(dst: int, src: int, bits: int) -> Step:
    """BPF_MOVSX32_REG: sign-extending move of the low 8 or 16 bits into 32."""
    return emit(f"MOVSX{bits}_32_REG", dst, src)


def neg64(dst: int) -> Step:
    """BPF_ALU64 | BPF_NEG."""
    return emit("NEG64", dst)


def neg32(dst: int) -> Step:
    """BPF_ALU | BPF_NEG."""
    return emit("NEG32", dst)


def sdiv_imm(dst: int, imm: int, bits: int = 64) -> Step:
    """Signed division by an immediate."""
    return emit(f"SDIV{bits}_IMM", dst, imm=imm)


def sdiv_reg(dst: int, src: int, bits: int = 64) -> Step:
    """Signed division by a register."""
    return emit(f"SDIV{bits}_REG", dst, src)


def smod_imm(dst: int, imm: int, bits: int = 64) -> Step:
    """Signed modulo by an immediate."""
    return emit(f"SMOD{bits}_IMM", dst, imm=imm)


def smod_reg(dst: int, src: int, bits: int = 64) -> Step:
    """Signed modulo by a register."""
    return emit(f"SMOD{bits}_REG", dst, src)


def endian(order: str, dst: int, bits: int) -> Step:
    """BPF_ENDIAN(order, dst, bits): order is LE or BE, bits 16, 32 or 64."""
    return emit(f"{order}{bits}", dst)


def bswap(dst: int, bits: int) -> Step:
    """BPF_BSWAP(dst, bits): unconditional byte swap."""
    return emit(f"BSWAP{bits}", dst)


def ld_abs(size: int, imm: int) -> Step:
    """BPF_LD_ABS(size, imm): packet bytes at imm into R0, host order. size is B, H or W."""
    return emit(_plain(fields.LD | fields.ABS | size), imm=imm)


def ld_ind(size: int, src: int, imm: int) -> Step:
    """BPF_LD_IND(size, src, imm): packet bytes at src + imm."""
    return emit(_plain(fields.LD | fields.IND | size), src=src, imm=imm)


def ldx_mem(size: int, dst: int, src: int, off: int) -> Step:
    """BPF_LDX_MEM(size, dst, src, off): dst = *(size *)(src + off)."""
    return emit(_plain(fields.LDX | fields.MEM | size), dst, src, off)


def ldsx_mem(size: int, dst: int, src: int, off: int) -> Step:
    """BPF_LDX_MEMSX: the same with sign extension; size is B, H or W."""
    return emit(_plain(fields.LDX | fields.MEMSX | size), dst, src, off)


def st_mem(size: int, dst: int, off: int, imm: int) -> Step:
    """BPF_ST_MEM(size, dst, off, imm): *(size *)(dst + off) = imm."""
    return emit(_plain(fields.ST | fields.MEM | size), dst, off=off, imm=imm)


def stx_mem(size: int, dst: int, src: int, off: int) -> Step:
    """BPF_STX_MEM(size, dst, src, off): *(size *)(dst + off) = src."""
    return emit(_plain(fields.STX | fields.MEM | size), dst, src, off)


def atomic_op(size: int, op: int, dst: int, src: int, off: int) -> Step:
    """BPF_ATOMIC_OP(size, op, dst, src, off): op is ADD, OR, AND, XOR, each also | FETCH, XCHG, CMPXCHG, LOAD_ACQ
    (dst = *(src + off)) or STORE_REL."""
    step = raw(fields.STX | fields.ATOMIC | size, dst, src, off, op)
    if step.row is None:
        raise ValueError(f"no atomic operation {op:#x} of {fields.SIZE_BYTES[size]} bytes")
    return step


def ja(target: Target) -> Step:
    """BPF_JMP_A(target)."""
    return _jump(emit("JA"), target)


def ja32(target: Target) -> Step:
    """BPF_JMP32_A(target): distance in 32 bits."""
    return _jump(emit("JA32"), target, "imm")


def may_goto(target: Target) -> Step:
    """BPF_JMP | BPF_JCOND: jumps once the loop budget is used up."""
    return _jump(emit("MAY_GOTO"), target)


def jmp_imm(op: int, dst: int, imm: int, target: Target) -> Step:
    """BPF_JMP_IMM(op, dst, imm, target): op is JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, JLT, JLE, JSLT or JSLE."""
    return _jump(emit(_plain(fields.JMP | op | fields.K), dst, imm=imm), target)


def jmp_reg(op: int, dst: int, src: int, target: Target) -> Step:
    """BPF_JMP_REG(op, dst, src, target)."""
    return _jump(emit(_plain(fields.JMP | op | fields.X), dst, src), target)


def jmp32_imm(op: int, dst: int, imm: int, target: Target) -> Step:
    """BPF_JMP32_IMM(op, dst, imm, target)."""
    return _jump(emit(_plain(fields.JMP32 | op | fields.K), dst, imm=imm), target)


def jmp32_reg(op: int, dst: int, src: int, target: Target) -> Step:
    """BPF_JMP32_REG(op, dst, src, target)."""
    return _jump(emit(_plain(fields.JMP32 | op | fields.X), dst, src), target)


def call(helper: str | int) -> Step:
    """BPF_EMIT_CALL: a helper by number or name, with or without `bpf_`."""
    if isinstance(helper, int):
        return emit("CALL_HELPER", imm=helper)
    number = NUMBERS.get(helper.removeprefix("bpf_"), INTERNAL_HELPERS.get(helper))
    if number is None:
        raise ValueError(f"there is no helper {helper!r}")
    return emit("CALL_HELPER", imm=number)


def call_local(target: Target) -> Step:
    """BPF_CALL_REL(target): a function of this program."""
    return _jump(emit("CALL_LOCAL"), target, "imm")


def call_kfunc(function: str | int) -> Step:
    """A kernel function by name, or by its number in one kernel's BTF. ValueError for a name that no kernel has."""
    if isinstance(function, int):
        return emit("CALL_KFUNC", imm=function)
    if not kfuncs.exists(function):
        raise ValueError(f"there is no kernel function {function!r}")
    return Step(emit("CALL_KFUNC").insn, kfunc=function)


def exit_() -> Step:
    """BPF_EXIT_INSN()."""
    return emit("EXIT")


def ld_imm64(dst: int, value: int) -> Step:
    """BPF_LD_IMM64(dst, value): two slots; value from -2^63 to 2^64-1."""
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"immediate {value} does not fit in 64 bits")
    step = emit("LD_IMM64", dst, imm=value & 0xFFFF_FFFF)
    return Step(step.insn, upper=value >> 32 & 0xFFFF_FFFF)


def ld_map(dst: int, name: str) -> Step:
    """BPF_LD_MAP_FD(dst, ...) with the map's name in place of a descriptor."""
    return Step(emit("LD_MAP_FD", dst).insn, map=name, upper=0)


def ld_map_value(dst: int, name: str, offset: int = 0) -> Step:
    """BPF_LD_MAP_VALUE: the address of byte `offset` of the only element of a map."""
    return Step(emit("LD_MAP_VALUE", dst).insn, map=name, upper=offset)


def ld_ksym(dst: int, name: str, *, weak: bool = False) -> Step:
    """The address of a variable (or function) of the kernel, 0 for a weak one that is not there."""
    return Step(emit("LD_BTF_ID", dst).insn, upper=0, variable=KernelVariable(name, weak))


def ld_func(dst: int, target: Target) -> Step:
    """The address of a function of this program, as callback helpers take it."""
    step = _jump(emit("LD_FUNC", dst), target, "imm")
    return Step(step.insn, step.target, "imm", upper=0)


def build(
    steps: Iterable[Step | Label], *, name: str = "", license: str = "GPL", maps: Mapping[str, Any] | None = None
) -> Program:
    """The program. maps: name -> MapSpec or live map, for ld_map and ld_map_value. ValueError for a label that is
    missing or given twice, an unknown map, or a jump too far for its field."""
    places: dict[str, int] = {}
    placed: list[tuple[int, Step]] = []
    slot = 0
    for step in steps:
        if isinstance(step, Label):
            if step.name in places:
                raise ValueError(f"label {step.name!r} is given twice")
            places[step.name] = slot
        else:
            placed.append((slot, step))
            slot += 1 if step.upper is None else 2
    insns: list[Insn] = []
    used: dict[int, Any] = {}
    kernel: dict[int, str] = {}
    variables: dict[int, KernelVariable] = {}
    for slot, step in placed:
        insn = step.insn
        if step.target is not None:
            if step.target not in places:
                raise ValueError(f"label {step.target!r} is missing")
            insn = _jump(Step(insn), places[step.target] - slot - 1, step.field).insn
        insns.append(insn)
        if step.upper is not None:
            insns.append(Insn(0, imm=_signed32(step.upper)))
        if step.kfunc is not None:
            kernel[slot] = step.kfunc
        if step.variable is not None:
            variables[slot] = step.variable
        if step.map is not None:
            if maps is None or step.map not in maps:
                raise ValueError(f"map {step.map!r} is not among maps=")
            used[slot] = maps[step.map]
    return Program(tuple(insns), name=name, license=license, maps=used, kfuncs=kernel, kvars=variables)
