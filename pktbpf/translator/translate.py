"""Classic to extended, step for step as the kernel's bpf_convert_filter does it (net/core/filter.c).

A is r0, X is r7, the context r6, r2 a temporary, M[k] the word at fp - 4 * (k + 1). Three differences, none of which
changes a verdict, make the result loadable by user space: registers are cleared by a move (the kernel xors them, which
its verifier would refuse as a read), a packet load stays LD_ABS/LD_IND, metadata is read through `struct __sk_buff`;
and unreachable instructions, which classic programs may have and extended ones may not, are left out. What has no such
form (HATYPE, NLATTR, PAY_OFFSET) becomes a call of an internal helper, see Program.internal_calls.
"""

from __future__ import annotations

from pktbpf.abi import ancillary, context
from pktbpf.isa.classic import ClassicInsn
from pktbpf.isa.extended import Insn
from pktbpf.program import INTERNAL_HELPERS, ClassicProgram, Program
from pktbpf.translator.check import check

A, TMP, CTX, X, SAVED, FP = 0, 2, 6, 7, 8, 10
GET_PRANDOM_U32, GET_SMP_PROCESSOR_ID = 7, 8

EXIT = Insn(0x95)
_INVERTED = {0x10: 0x50, 0x20: 0xB0, 0x30: 0xA0}  # JEQ -> JNE, JGT -> JLE, JGE -> JLT


def translate(classic: ClassicProgram) -> Program:
    """Check a classic program and translate it. Raises ProgramRefused for what the kernel would not attach."""
    check(classic)
    live = reachable(classic.insns)
    bodies = [_convert(insn) if alive else [] for insn, alive in zip(classic.insns, live, strict=True)]
    prologue = [mov32(A, 0), mov32(X, 0), Insn(0xBF, CTX, 1)]
    starts, at = [], len(prologue)
    for body in bodies:
        starts.append(at)
        at += len(body)
    out = list(prologue)
    for pc, (insn, body) in enumerate(zip(classic.insns, bodies, strict=True)):
        out += _resolve(body, starts[pc], insn, pc, starts)
    return Program(
        tuple(out),
        classic=classic,
        starts=tuple(start if alive else -1 for start, alive in zip(starts, live, strict=True)),
        origin=classic.origin,
    )


def reachable(insns: tuple[ClassicInsn, ...]) -> list[bool]:
    """Which instructions of a checked program can be reached at all. Jumps go forward, so one pass decides."""
    live = [False] * len(insns)
    live[0] = True
    for pc, insn in enumerate(insns):
        if not live[pc] or insn.row is None:
            continue
        if insn.row.branch:
            live[pc + 1 + insn.jt] = live[pc + 1 + insn.jf] = True
        elif insn.row.name == "JA":
            live[pc + 1 + insn.k] = True
        elif insn.code & 0x07 != 0x06:
            live[pc + 1] = True
    return live


def signed(value: int) -> int:
    """A u32 as the s32 of an immediate."""
    return value - (1 << 32) if value & 0x8000_0000 else value


def mov32(dst: int, value: int) -> Insn:
    """w{dst} = value."""
    return Insn(0xB4, dst, imm=signed(value))


def mov64(dst: int, src: int) -> Insn:
    """r{dst} = r{src}."""
    return Insn(0xBF, dst, src)


def _ldx(dst: int, field: str) -> Insn:
    return Insn(0x61, dst, CTX, context.BY_NAME[field].offset)


def _convert(insn: ClassicInsn) -> list[Insn]:
    """The instructions of one classic instruction; jumps still without distances."""
    row = insn.row
    assert row is not None, "check() refuses unknown opcodes"
    name, k = row.name, signed(insn.k)
    if name.startswith("LD_ABS"):
        known = ancillary.BY_K.get(insn.k)
        return _ancillary(known.name) if known else [Insn(insn.code, imm=k)]
    if name.startswith("LD_IND"):
        return [Insn(insn.code, 0, X, imm=k)]
    if row.branch:
        return _branch(insn)
    if name in ("DIV_X", "MOD_X"):
        return [Insn(0xBC, X, X), Insn(0x55, X, off=2), mov32(A, 0), EXIT, Insn(insn.code, A, X)]
    if insn.code & 0x07 == 0x04:
        by_register = insn.code & 0x08
        return [Insn(insn.code, A, X if by_register else 0, imm=0 if by_register or name == "NEG" else k)]
    return _move(name, insn)


def _move(name: str, insn: ClassicInsn) -> list[Insn]:
    """Loads, stores, transfers, returns."""
    slot = -4 * (insn.k + 1)
    match name:
        case "LD_IMM":
            return [mov32(A, insn.k)]
        case "LDX_IMM":
            return [mov32(X, insn.k)]
        case "LD_LEN":
            return [_ldx(A, "len")]
        case "LDX_LEN":
            return [_ldx(X, "len")]
        case "LD_MEM":
            return [Insn(0x61, A, FP, slot)]
        case "LDX_MEM":
            return [Insn(0x61, X, FP, slot)]
        case "ST":
            return [Insn(0x63, FP, A, slot)]
        case "STX":
            return [Insn(0x63, FP, X, slot)]
        case "TAX":
            return [mov64(X, A)]
        case "TXA":
            return [mov64(A, X)]
        case "RET_K":
            return [mov32(A, insn.k), EXIT]
        case "RET_A":
            return [EXIT]
        case "JA":
            return [Insn(0x05)]
        case "LDX_MSH":
            load = Insn(0x30, imm=signed(insn.k))
            mask, shift = Insn(0x54, A, imm=0xF), Insn(0x64, A, imm=2)
            return [mov64(X, A), load, mask, shift, mov64(TMP, X), mov64(X, A), mov64(A, TMP)]
    raise AssertionError(f"no translation for {name}")


def _ancillary(name: str) -> list[Insn]:
    """Metadata loads. IFINDEX and HATYPE end the filter with A when the packet has no device."""
    if name == "ALU_XOR_X":
        return [Insn(0xAC, A, X)]
    if name == "IFINDEX":
        return [_ldx(TMP, "ifindex"), Insn(0x55, TMP, off=1), EXIT, mov64(A, TMP)]
    if name == "HATYPE":
        call = Insn(0x85, imm=INTERNAL_HELPERS["dev_type"])
        return [mov64(SAVED, A), mov64(1, CTX), call, Insn(0x75, A, off=2), mov64(A, SAVED), EXIT]
    if name == "CPU":
        return [Insn(0x85, imm=GET_SMP_PROCESSOR_ID)]
    if name == "RANDOM":
        return [Insn(0x85, imm=GET_PRANDOM_U32)]
    internal = {
        "PAY_OFFSET": "skb_get_pay_offset", "NLATTR": "skb_get_nlattr", "NLATTR_NEST": "skb_get_nlattr_nest"
    }.get(name)  # fmt: skip
    if internal:
        return [mov64(1, CTX), mov64(2, A), mov64(3, X), Insn(0x85, imm=INTERNAL_HELPERS[internal])]
    field = ancillary.BY_NAME[name].field
    assert field is not None
    swapped = [Insn(0xDC, A, imm=16)] if field in ("protocol", "vlan_proto") else []
    return [_ldx(A, field), *swapped]


def _branch(insn: ClassicInsn) -> list[Insn]:
    """One or two jumps; an immediate that would be sign-extended goes through a register first."""
    operation, by_register = insn.code & 0xF0, bool(insn.code & 0x08)
    before: list[Insn] = []
    if not by_register and insn.k & 0x8000_0000:
        before, operand = [mov32(TMP, insn.k)], Insn(0x0D, A, TMP)
    else:
        operand = Insn(0x0D, A, X) if by_register else Insn(0x05, A, imm=insn.k)
    if insn.jf == 0:
        return [*before, operand._replace(code=operand.code | operation)]
    if insn.jt == 0 and operation in _INVERTED:
        return [*before, operand._replace(code=operand.code & 0x0F | _INVERTED[operation])]
    return [*before, operand._replace(code=operand.code | operation), Insn(0x05)]


def _resolve(body: list[Insn], start: int, insn: ClassicInsn, pc: int, starts: list[int]) -> list[Insn]:
    """Fill in the distances of the jumps that leave this instruction's own group."""
    row = insn.row
    if not body or row is None or not (row.branch or row.name == "JA"):
        return body
    if row.name == "JA":
        return [body[0]._replace(off=starts[pc + 1 + insn.k] - start - 1)]
    at = next(i for i, step in enumerate(body) if step.code & 0x07 == 0x05)
    inverted = insn.jt == 0 and insn.jf != 0 and len(body) == at + 1
    first = insn.jf if inverted else insn.jt
    out = list(body)
    out[at] = out[at]._replace(off=starts[pc + 1 + first] - (start + at) - 1)
    if len(body) > at + 1:
        out[at + 1] = out[at + 1]._replace(off=starts[pc + 1 + insn.jf] - (start + at + 1) - 1)
    return out
