"""The extended instruction set, one row per operation (RFC 9669; may_goto and load-acquire/store-release: uapi bpf.h).

A row fixes the opcode and those of src, off and imm that select the operation. A field that neither the syntax names
nor the row fixes is reserved and must be zero. `row_of` finds the row of any eight bytes or says None: decoding is
total, an unknown word travels on as it is and the checks refuse it with a reason.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Kind(enum.Enum):
    """What dispatch needs to know; a `match` over it ends with `assert_never`."""

    ALU = "alu"
    SWAP = "swap"
    LOAD_IMM64 = "load_imm64"
    PACKET = "packet"
    LOAD = "load"
    STORE = "store"
    ATOMIC = "atomic"
    JUMP = "jump"
    BRANCH = "branch"
    MAY_GOTO = "may_goto"
    CALL = "call"
    EXIT = "exit"


@dataclass(frozen=True, slots=True)
class Row:
    """One operation.

    bits: width of the arithmetic, compare or memory access. reg: the second operand is a register, not an immediate.
    syntax: the kernel's own wording with {dst} {src} {off} {imm} {imm64} {hi} {map} {helper} and {far} (a jump or call
    distance kept in imm). cpu: first instruction-set version with it (clang -mcpu); 5 stands for newer than v4.
    src, off, imm: the value that selects this row, None where the field is an operand or reserved.
    """

    name: str
    code: int
    kind: Kind
    operation: str
    bits: int
    reg: bool
    syntax: str
    cpu: int
    src: int | None = None
    off: int | None = None
    imm: int | None = None
    uses: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        named = set(re.findall(r"\{(\w+)\}", self.syntax))
        uses = named & {"dst", "src", "off"}
        if named & {"imm", "imm64", "map", "helper", "far"}:
            uses.add("imm")
        object.__setattr__(self, "uses", frozenset(uses))

    @property
    def size(self) -> int:
        """Bytes that a memory access moves."""
        return self.bits // 8

    def matches(self, insn: Insn) -> bool:
        """Whether the selecting fields have this row's values; reserved fields are `reserved_clear`'s question."""
        return (
            insn.code == self.code
            and (self.src is None or insn.src == self.src)
            and (self.off is None or insn.off == self.off)
            and (self.imm is None or insn.imm == self.imm)
        )

    def reserved_clear(self, insn: Insn) -> bool:
        """Whether every field that is neither operand nor selector is zero, as the kernel demands. At the offset of an
        exit it does not look."""
        return all(
            getattr(insn, name) == 0
            for name in ("dst", "src", "off", "imm")
            if name not in self.uses and getattr(self, name, None) is None and (name, self.kind) != ("off", Kind.EXIT)
        )


# One line per operation; the dense number of an operation is its place in this table.
ROWS: tuple[Row, ...] = (
    Row("ADD64_IMM", 0x07, Kind.ALU, "ADD", 64, False, "r{dst} += {imm}", 1),
    Row("ADD64_REG", 0x0F, Kind.ALU, "ADD", 64, True, "r{dst} += r{src}", 1),
    Row("SUB64_IMM", 0x17, Kind.ALU, "SUB", 64, False, "r{dst} -= {imm}", 1),
    Row("SUB64_REG", 0x1F, Kind.ALU, "SUB", 64, True, "r{dst} -= r{src}", 1),
    Row("MUL64_IMM", 0x27, Kind.ALU, "MUL", 64, False, "r{dst} *= {imm}", 1),
    Row("MUL64_REG", 0x2F, Kind.ALU, "MUL", 64, True, "r{dst} *= r{src}", 1),
    Row("DIV64_IMM", 0x37, Kind.ALU, "DIV", 64, False, "r{dst} /= {imm}", 1),
    Row("DIV64_REG", 0x3F, Kind.ALU, "DIV", 64, True, "r{dst} /= r{src}", 1),
    Row("OR64_IMM", 0x47, Kind.ALU, "OR", 64, False, "r{dst} |= {imm}", 1),
    Row("OR64_REG", 0x4F, Kind.ALU, "OR", 64, True, "r{dst} |= r{src}", 1),
    Row("AND64_IMM", 0x57, Kind.ALU, "AND", 64, False, "r{dst} &= {imm}", 1),
    Row("AND64_REG", 0x5F, Kind.ALU, "AND", 64, True, "r{dst} &= r{src}", 1),
    Row("LSH64_IMM", 0x67, Kind.ALU, "LSH", 64, False, "r{dst} <<= {imm}", 1),
    Row("LSH64_REG", 0x6F, Kind.ALU, "LSH", 64, True, "r{dst} <<= r{src}", 1),
    Row("RSH64_IMM", 0x77, Kind.ALU, "RSH", 64, False, "r{dst} >>= {imm}", 1),
    Row("RSH64_REG", 0x7F, Kind.ALU, "RSH", 64, True, "r{dst} >>= r{src}", 1),
    Row("MOD64_IMM", 0x97, Kind.ALU, "MOD", 64, False, "r{dst} %= {imm}", 1),
    Row("MOD64_REG", 0x9F, Kind.ALU, "MOD", 64, True, "r{dst} %= r{src}", 1),
    Row("XOR64_IMM", 0xA7, Kind.ALU, "XOR", 64, False, "r{dst} ^= {imm}", 1),
    Row("XOR64_REG", 0xAF, Kind.ALU, "XOR", 64, True, "r{dst} ^= r{src}", 1),
    Row("MOV64_IMM", 0xB7, Kind.ALU, "MOV", 64, False, "r{dst} = {imm}", 1),
    Row("MOV64_REG", 0xBF, Kind.ALU, "MOV", 64, True, "r{dst} = r{src}", 1),
    Row("ARSH64_IMM", 0xC7, Kind.ALU, "ARSH", 64, False, "r{dst} s>>= {imm}", 1),
    Row("ARSH64_REG", 0xCF, Kind.ALU, "ARSH", 64, True, "r{dst} s>>= r{src}", 1),
    Row("SDIV64_IMM", 0x37, Kind.ALU, "SDIV", 64, False, "r{dst} s/= {imm}", 4, off=1),
    Row("SDIV64_REG", 0x3F, Kind.ALU, "SDIV", 64, True, "r{dst} s/= r{src}", 4, off=1),
    Row("SMOD64_IMM", 0x97, Kind.ALU, "SMOD", 64, False, "r{dst} s%= {imm}", 4, off=1),
    Row("SMOD64_REG", 0x9F, Kind.ALU, "SMOD", 64, True, "r{dst} s%= r{src}", 4, off=1),
    Row("MOVSX8_64_REG", 0xBF, Kind.ALU, "MOVSX8", 64, True, "r{dst} = (s8)r{src}", 4, off=8),
    Row("MOVSX16_64_REG", 0xBF, Kind.ALU, "MOVSX16", 64, True, "r{dst} = (s16)r{src}", 4, off=16),
    Row("MOVSX32_64_REG", 0xBF, Kind.ALU, "MOVSX32", 64, True, "r{dst} = (s32)r{src}", 4, off=32),
    Row("NEG64", 0x87, Kind.ALU, "NEG", 64, False, "r{dst} = -r{dst}", 1),
    Row("ADD32_IMM", 0x04, Kind.ALU, "ADD", 32, False, "w{dst} += {imm}", 1),
    Row("ADD32_REG", 0x0C, Kind.ALU, "ADD", 32, True, "w{dst} += w{src}", 1),
    Row("SUB32_IMM", 0x14, Kind.ALU, "SUB", 32, False, "w{dst} -= {imm}", 1),
    Row("SUB32_REG", 0x1C, Kind.ALU, "SUB", 32, True, "w{dst} -= w{src}", 1),
    Row("MUL32_IMM", 0x24, Kind.ALU, "MUL", 32, False, "w{dst} *= {imm}", 1),
    Row("MUL32_REG", 0x2C, Kind.ALU, "MUL", 32, True, "w{dst} *= w{src}", 1),
    Row("DIV32_IMM", 0x34, Kind.ALU, "DIV", 32, False, "w{dst} /= {imm}", 1),
    Row("DIV32_REG", 0x3C, Kind.ALU, "DIV", 32, True, "w{dst} /= w{src}", 1),
    Row("OR32_IMM", 0x44, Kind.ALU, "OR", 32, False, "w{dst} |= {imm}", 1),
    Row("OR32_REG", 0x4C, Kind.ALU, "OR", 32, True, "w{dst} |= w{src}", 1),
    Row("AND32_IMM", 0x54, Kind.ALU, "AND", 32, False, "w{dst} &= {imm}", 1),
    Row("AND32_REG", 0x5C, Kind.ALU, "AND", 32, True, "w{dst} &= w{src}", 1),
    Row("LSH32_IMM", 0x64, Kind.ALU, "LSH", 32, False, "w{dst} <<= {imm}", 1),
    Row("LSH32_REG", 0x6C, Kind.ALU, "LSH", 32, True, "w{dst} <<= w{src}", 1),
    Row("RSH32_IMM", 0x74, Kind.ALU, "RSH", 32, False, "w{dst} >>= {imm}", 1),
    Row("RSH32_REG", 0x7C, Kind.ALU, "RSH", 32, True, "w{dst} >>= w{src}", 1),
    Row("MOD32_IMM", 0x94, Kind.ALU, "MOD", 32, False, "w{dst} %= {imm}", 1),
    Row("MOD32_REG", 0x9C, Kind.ALU, "MOD", 32, True, "w{dst} %= w{src}", 1),
    Row("XOR32_IMM", 0xA4, Kind.ALU, "XOR", 32, False, "w{dst} ^= {imm}", 1),
    Row("XOR32_REG", 0xAC, Kind.ALU, "XOR", 32, True, "w{dst} ^= w{src}", 1),
    Row("MOV32_IMM", 0xB4, Kind.ALU, "MOV", 32, False, "w{dst} = {imm}", 1),
    Row("MOV32_REG", 0xBC, Kind.ALU, "MOV", 32, True, "w{dst} = w{src}", 1),
    Row("ARSH32_IMM", 0xC4, Kind.ALU, "ARSH", 32, False, "w{dst} s>>= {imm}", 1),
    Row("ARSH32_REG", 0xCC, Kind.ALU, "ARSH", 32, True, "w{dst} s>>= w{src}", 1),
    Row("SDIV32_IMM", 0x34, Kind.ALU, "SDIV", 32, False, "w{dst} s/= {imm}", 4, off=1),
    Row("SDIV32_REG", 0x3C, Kind.ALU, "SDIV", 32, True, "w{dst} s/= w{src}", 4, off=1),
    Row("SMOD32_IMM", 0x94, Kind.ALU, "SMOD", 32, False, "w{dst} s%= {imm}", 4, off=1),
    Row("SMOD32_REG", 0x9C, Kind.ALU, "SMOD", 32, True, "w{dst} s%= w{src}", 4, off=1),
    Row("MOVSX8_32_REG", 0xBC, Kind.ALU, "MOVSX8", 32, True, "w{dst} = (s8)w{src}", 4, off=8),
    Row("MOVSX16_32_REG", 0xBC, Kind.ALU, "MOVSX16", 32, True, "w{dst} = (s16)w{src}", 4, off=16),
    Row("NEG32", 0x84, Kind.ALU, "NEG", 32, False, "w{dst} = -w{dst}", 1),
    Row("LE16", 0xD4, Kind.SWAP, "LE", 16, False, "r{dst} = le16 r{dst}", 1, imm=16),
    Row("LE32", 0xD4, Kind.SWAP, "LE", 32, False, "r{dst} = le32 r{dst}", 1, imm=32),
    Row("LE64", 0xD4, Kind.SWAP, "LE", 64, False, "r{dst} = le64 r{dst}", 1, imm=64),
    Row("BE16", 0xDC, Kind.SWAP, "BE", 16, False, "r{dst} = be16 r{dst}", 1, imm=16),
    Row("BE32", 0xDC, Kind.SWAP, "BE", 32, False, "r{dst} = be32 r{dst}", 1, imm=32),
    Row("BE64", 0xDC, Kind.SWAP, "BE", 64, False, "r{dst} = be64 r{dst}", 1, imm=64),
    Row("BSWAP16", 0xD7, Kind.SWAP, "BSWAP", 16, False, "r{dst} = bswap16 r{dst}", 4, imm=16),
    Row("BSWAP32", 0xD7, Kind.SWAP, "BSWAP", 32, False, "r{dst} = bswap32 r{dst}", 4, imm=32),
    Row("BSWAP64", 0xD7, Kind.SWAP, "BSWAP", 64, False, "r{dst} = bswap64 r{dst}", 4, imm=64),
    Row("JA", 0x05, Kind.JUMP, "JA", 64, False, "goto pc{off}", 1),
    Row("JA32", 0x06, Kind.JUMP, "JA", 32, False, "gotol pc{far}", 4),
    Row("JEQ64_IMM", 0x15, Kind.BRANCH, "JEQ", 64, False, "if r{dst} == {imm} goto pc{off}", 1),
    Row("JEQ64_REG", 0x1D, Kind.BRANCH, "JEQ", 64, True, "if r{dst} == r{src} goto pc{off}", 1),
    Row("JGT64_IMM", 0x25, Kind.BRANCH, "JGT", 64, False, "if r{dst} > {imm} goto pc{off}", 1),
    Row("JGT64_REG", 0x2D, Kind.BRANCH, "JGT", 64, True, "if r{dst} > r{src} goto pc{off}", 1),
    Row("JGE64_IMM", 0x35, Kind.BRANCH, "JGE", 64, False, "if r{dst} >= {imm} goto pc{off}", 1),
    Row("JGE64_REG", 0x3D, Kind.BRANCH, "JGE", 64, True, "if r{dst} >= r{src} goto pc{off}", 1),
    Row("JSET64_IMM", 0x45, Kind.BRANCH, "JSET", 64, False, "if r{dst} & {imm} goto pc{off}", 1),
    Row("JSET64_REG", 0x4D, Kind.BRANCH, "JSET", 64, True, "if r{dst} & r{src} goto pc{off}", 1),
    Row("JNE64_IMM", 0x55, Kind.BRANCH, "JNE", 64, False, "if r{dst} != {imm} goto pc{off}", 1),
    Row("JNE64_REG", 0x5D, Kind.BRANCH, "JNE", 64, True, "if r{dst} != r{src} goto pc{off}", 1),
    Row("JSGT64_IMM", 0x65, Kind.BRANCH, "JSGT", 64, False, "if r{dst} s> {imm} goto pc{off}", 1),
    Row("JSGT64_REG", 0x6D, Kind.BRANCH, "JSGT", 64, True, "if r{dst} s> r{src} goto pc{off}", 1),
    Row("JSGE64_IMM", 0x75, Kind.BRANCH, "JSGE", 64, False, "if r{dst} s>= {imm} goto pc{off}", 1),
    Row("JSGE64_REG", 0x7D, Kind.BRANCH, "JSGE", 64, True, "if r{dst} s>= r{src} goto pc{off}", 1),
    Row("JLT64_IMM", 0xA5, Kind.BRANCH, "JLT", 64, False, "if r{dst} < {imm} goto pc{off}", 2),
    Row("JLT64_REG", 0xAD, Kind.BRANCH, "JLT", 64, True, "if r{dst} < r{src} goto pc{off}", 2),
    Row("JLE64_IMM", 0xB5, Kind.BRANCH, "JLE", 64, False, "if r{dst} <= {imm} goto pc{off}", 2),
    Row("JLE64_REG", 0xBD, Kind.BRANCH, "JLE", 64, True, "if r{dst} <= r{src} goto pc{off}", 2),
    Row("JSLT64_IMM", 0xC5, Kind.BRANCH, "JSLT", 64, False, "if r{dst} s< {imm} goto pc{off}", 2),
    Row("JSLT64_REG", 0xCD, Kind.BRANCH, "JSLT", 64, True, "if r{dst} s< r{src} goto pc{off}", 2),
    Row("JSLE64_IMM", 0xD5, Kind.BRANCH, "JSLE", 64, False, "if r{dst} s<= {imm} goto pc{off}", 2),
    Row("JSLE64_REG", 0xDD, Kind.BRANCH, "JSLE", 64, True, "if r{dst} s<= r{src} goto pc{off}", 2),
    Row("JEQ32_IMM", 0x16, Kind.BRANCH, "JEQ", 32, False, "if w{dst} == {imm} goto pc{off}", 3),
    Row("JEQ32_REG", 0x1E, Kind.BRANCH, "JEQ", 32, True, "if w{dst} == w{src} goto pc{off}", 3),
    Row("JGT32_IMM", 0x26, Kind.BRANCH, "JGT", 32, False, "if w{dst} > {imm} goto pc{off}", 3),
    Row("JGT32_REG", 0x2E, Kind.BRANCH, "JGT", 32, True, "if w{dst} > w{src} goto pc{off}", 3),
    Row("JGE32_IMM", 0x36, Kind.BRANCH, "JGE", 32, False, "if w{dst} >= {imm} goto pc{off}", 3),
    Row("JGE32_REG", 0x3E, Kind.BRANCH, "JGE", 32, True, "if w{dst} >= w{src} goto pc{off}", 3),
    Row("JSET32_IMM", 0x46, Kind.BRANCH, "JSET", 32, False, "if w{dst} & {imm} goto pc{off}", 3),
    Row("JSET32_REG", 0x4E, Kind.BRANCH, "JSET", 32, True, "if w{dst} & w{src} goto pc{off}", 3),
    Row("JNE32_IMM", 0x56, Kind.BRANCH, "JNE", 32, False, "if w{dst} != {imm} goto pc{off}", 3),
    Row("JNE32_REG", 0x5E, Kind.BRANCH, "JNE", 32, True, "if w{dst} != w{src} goto pc{off}", 3),
    Row("JSGT32_IMM", 0x66, Kind.BRANCH, "JSGT", 32, False, "if w{dst} s> {imm} goto pc{off}", 3),
    Row("JSGT32_REG", 0x6E, Kind.BRANCH, "JSGT", 32, True, "if w{dst} s> w{src} goto pc{off}", 3),
    Row("JSGE32_IMM", 0x76, Kind.BRANCH, "JSGE", 32, False, "if w{dst} s>= {imm} goto pc{off}", 3),
    Row("JSGE32_REG", 0x7E, Kind.BRANCH, "JSGE", 32, True, "if w{dst} s>= w{src} goto pc{off}", 3),
    Row("JLT32_IMM", 0xA6, Kind.BRANCH, "JLT", 32, False, "if w{dst} < {imm} goto pc{off}", 3),
    Row("JLT32_REG", 0xAE, Kind.BRANCH, "JLT", 32, True, "if w{dst} < w{src} goto pc{off}", 3),
    Row("JLE32_IMM", 0xB6, Kind.BRANCH, "JLE", 32, False, "if w{dst} <= {imm} goto pc{off}", 3),
    Row("JLE32_REG", 0xBE, Kind.BRANCH, "JLE", 32, True, "if w{dst} <= w{src} goto pc{off}", 3),
    Row("JSLT32_IMM", 0xC6, Kind.BRANCH, "JSLT", 32, False, "if w{dst} s< {imm} goto pc{off}", 3),
    Row("JSLT32_REG", 0xCE, Kind.BRANCH, "JSLT", 32, True, "if w{dst} s< w{src} goto pc{off}", 3),
    Row("JSLE32_IMM", 0xD6, Kind.BRANCH, "JSLE", 32, False, "if w{dst} s<= {imm} goto pc{off}", 3),
    Row("JSLE32_REG", 0xDE, Kind.BRANCH, "JSLE", 32, True, "if w{dst} s<= w{src} goto pc{off}", 3),
    Row("MAY_GOTO", 0xE5, Kind.MAY_GOTO, "MAY_GOTO", 64, False, "may_goto pc{off}", 5),
    Row("CALL_HELPER", 0x85, Kind.CALL, "HELPER", 64, False, "call {helper}", 1, src=0),
    Row("CALL_LOCAL", 0x85, Kind.CALL, "LOCAL", 64, False, "call pc{far}", 1, src=1),
    Row("CALL_KFUNC", 0x85, Kind.CALL, "KFUNC", 64, False, "call kernel-function#{imm}", 1, src=2),
    Row("EXIT", 0x95, Kind.EXIT, "EXIT", 64, False, "exit", 1),
    Row("LDX_B", 0x71, Kind.LOAD, "LDX", 8, False, "r{dst} = *(u8 *)(r{src} {off})", 1),
    Row("LDX_H", 0x69, Kind.LOAD, "LDX", 16, False, "r{dst} = *(u16 *)(r{src} {off})", 1),
    Row("LDX_W", 0x61, Kind.LOAD, "LDX", 32, False, "r{dst} = *(u32 *)(r{src} {off})", 1),
    Row("LDX_DW", 0x79, Kind.LOAD, "LDX", 64, False, "r{dst} = *(u64 *)(r{src} {off})", 1),
    Row("LDSX_B", 0x91, Kind.LOAD, "LDSX", 8, False, "r{dst} = *(s8 *)(r{src} {off})", 4),
    Row("LDSX_H", 0x89, Kind.LOAD, "LDSX", 16, False, "r{dst} = *(s16 *)(r{src} {off})", 4),
    Row("LDSX_W", 0x81, Kind.LOAD, "LDSX", 32, False, "r{dst} = *(s32 *)(r{src} {off})", 4),
    Row("ST_B", 0x72, Kind.STORE, "ST", 8, False, "*(u8 *)(r{dst} {off}) = {imm}", 1),
    Row("ST_H", 0x6A, Kind.STORE, "ST", 16, False, "*(u16 *)(r{dst} {off}) = {imm}", 1),
    Row("ST_W", 0x62, Kind.STORE, "ST", 32, False, "*(u32 *)(r{dst} {off}) = {imm}", 1),
    Row("ST_DW", 0x7A, Kind.STORE, "ST", 64, False, "*(u64 *)(r{dst} {off}) = {imm}", 1),
    Row("STX_B", 0x73, Kind.STORE, "STX", 8, True, "*(u8 *)(r{dst} {off}) = r{src}", 1),
    Row("STX_H", 0x6B, Kind.STORE, "STX", 16, True, "*(u16 *)(r{dst} {off}) = r{src}", 1),
    Row("STX_W", 0x63, Kind.STORE, "STX", 32, True, "*(u32 *)(r{dst} {off}) = r{src}", 1),
    Row("STX_DW", 0x7B, Kind.STORE, "STX", 64, True, "*(u64 *)(r{dst} {off}) = r{src}", 1),
    Row("ATOMIC_ADD_W", 0xC3, Kind.ATOMIC, "ADD", 32, True, "lock *(u32 *)(r{dst} {off}) += r{src}", 1, imm=0),
    Row("ATOMIC_OR_W", 0xC3, Kind.ATOMIC, "OR", 32, True, "lock *(u32 *)(r{dst} {off}) |= r{src}", 3, imm=64),
    Row("ATOMIC_AND_W", 0xC3, Kind.ATOMIC, "AND", 32, True, "lock *(u32 *)(r{dst} {off}) &= r{src}", 3, imm=80),
    Row("ATOMIC_XOR_W", 0xC3, Kind.ATOMIC, "XOR", 32, True, "lock *(u32 *)(r{dst} {off}) ^= r{src}", 3, imm=160),
    Row("ATOMIC_FETCH_ADD_W", 0xC3, Kind.ATOMIC, "FETCH_ADD", 32, True, "r{src} = atomic_fetch_add((u32 *)(r{dst} {off}), r{src})", 3, imm=1),
    Row("ATOMIC_FETCH_OR_W", 0xC3, Kind.ATOMIC, "FETCH_OR", 32, True, "r{src} = atomic_fetch_or((u32 *)(r{dst} {off}), r{src})", 3, imm=65),
    Row("ATOMIC_FETCH_AND_W", 0xC3, Kind.ATOMIC, "FETCH_AND", 32, True, "r{src} = atomic_fetch_and((u32 *)(r{dst} {off}), r{src})", 3, imm=81),
    Row("ATOMIC_FETCH_XOR_W", 0xC3, Kind.ATOMIC, "FETCH_XOR", 32, True, "r{src} = atomic_fetch_xor((u32 *)(r{dst} {off}), r{src})", 3, imm=161),
    Row("ATOMIC_XCHG_W", 0xC3, Kind.ATOMIC, "XCHG", 32, True, "r{src} = atomic_xchg((u32 *)(r{dst} {off}), r{src})", 3, imm=225),
    Row("ATOMIC_CMPXCHG_W", 0xC3, Kind.ATOMIC, "CMPXCHG", 32, True, "r0 = atomic_cmpxchg((u32 *)(r{dst} {off}), r0, r{src})", 3, imm=241),
    Row("ATOMIC_ADD_DW", 0xDB, Kind.ATOMIC, "ADD", 64, True, "lock *(u64 *)(r{dst} {off}) += r{src}", 1, imm=0),
    Row("ATOMIC_OR_DW", 0xDB, Kind.ATOMIC, "OR", 64, True, "lock *(u64 *)(r{dst} {off}) |= r{src}", 3, imm=64),
    Row("ATOMIC_AND_DW", 0xDB, Kind.ATOMIC, "AND", 64, True, "lock *(u64 *)(r{dst} {off}) &= r{src}", 3, imm=80),
    Row("ATOMIC_XOR_DW", 0xDB, Kind.ATOMIC, "XOR", 64, True, "lock *(u64 *)(r{dst} {off}) ^= r{src}", 3, imm=160),
    Row("ATOMIC_FETCH_ADD_DW", 0xDB, Kind.ATOMIC, "FETCH_ADD", 64, True, "r{src} = atomic64_fetch_add((u64 *)(r{dst} {off}), r{src})", 3, imm=1),
    Row("ATOMIC_FETCH_OR_DW", 0xDB, Kind.ATOMIC, "FETCH_OR", 64, True, "r{src} = atomic64_fetch_or((u64 *)(r{dst} {off}), r{src})", 3, imm=65),
    Row("ATOMIC_FETCH_AND_DW", 0xDB, Kind.ATOMIC, "FETCH_AND", 64, True, "r{src} = atomic64_fetch_and((u64 *)(r{dst} {off}), r{src})", 3, imm=81),
    Row("ATOMIC_FETCH_XOR_DW", 0xDB, Kind.ATOMIC, "FETCH_XOR", 64, True, "r{src} = atomic64_fetch_xor((u64 *)(r{dst} {off}), r{src})", 3, imm=161),
    Row("ATOMIC_XCHG_DW", 0xDB, Kind.ATOMIC, "XCHG", 64, True, "r{src} = atomic64_xchg((u64 *)(r{dst} {off}), r{src})", 3, imm=225),
    Row("ATOMIC_CMPXCHG_DW", 0xDB, Kind.ATOMIC, "CMPXCHG", 64, True, "r0 = atomic64_cmpxchg((u64 *)(r{dst} {off}), r0, r{src})", 3, imm=241),
    Row("LOAD_ACQ_B", 0xD3, Kind.ATOMIC, "LOAD_ACQ", 8, True, "r{dst} = load_acquire((u8 *)(r{src} {off}))", 5, imm=256),
    Row("LOAD_ACQ_H", 0xCB, Kind.ATOMIC, "LOAD_ACQ", 16, True, "r{dst} = load_acquire((u16 *)(r{src} {off}))", 5, imm=256),
    Row("LOAD_ACQ_W", 0xC3, Kind.ATOMIC, "LOAD_ACQ", 32, True, "r{dst} = load_acquire((u32 *)(r{src} {off}))", 5, imm=256),
    Row("LOAD_ACQ_DW", 0xDB, Kind.ATOMIC, "LOAD_ACQ", 64, True, "r{dst} = load_acquire((u64 *)(r{src} {off}))", 5, imm=256),
    Row("STORE_REL_B", 0xD3, Kind.ATOMIC, "STORE_REL", 8, True, "store_release((u8 *)(r{dst} {off}), r{src})", 5, imm=272),
    Row("STORE_REL_H", 0xCB, Kind.ATOMIC, "STORE_REL", 16, True, "store_release((u16 *)(r{dst} {off}), r{src})", 5, imm=272),
    Row("STORE_REL_W", 0xC3, Kind.ATOMIC, "STORE_REL", 32, True, "store_release((u32 *)(r{dst} {off}), r{src})", 5, imm=272),
    Row("STORE_REL_DW", 0xDB, Kind.ATOMIC, "STORE_REL", 64, True, "store_release((u64 *)(r{dst} {off}), r{src})", 5, imm=272),
    Row("LD_ABS_B", 0x30, Kind.PACKET, "ABS", 8, False, "r0 = *(u8 *)skb[{imm}]", 1),
    Row("LD_ABS_H", 0x28, Kind.PACKET, "ABS", 16, False, "r0 = *(u16 *)skb[{imm}]", 1),
    Row("LD_ABS_W", 0x20, Kind.PACKET, "ABS", 32, False, "r0 = *(u32 *)skb[{imm}]", 1),
    Row("LD_IND_B", 0x50, Kind.PACKET, "IND", 8, True, "r0 = *(u8 *)skb[r{src} + {imm}]", 1),
    Row("LD_IND_H", 0x48, Kind.PACKET, "IND", 16, True, "r0 = *(u16 *)skb[r{src} + {imm}]", 1),
    Row("LD_IND_W", 0x40, Kind.PACKET, "IND", 32, True, "r0 = *(u32 *)skb[r{src} + {imm}]", 1),
    Row("LD_IMM64", 0x18, Kind.LOAD_IMM64, "IMM64", 64, False, "r{dst} = {imm64} ll", 1, src=0),
    Row("LD_MAP_FD", 0x18, Kind.LOAD_IMM64, "MAP_FD", 64, False, "r{dst} = map[{map}] ll", 1, src=1),
    Row("LD_MAP_VALUE", 0x18, Kind.LOAD_IMM64, "MAP_VALUE", 64, False, "r{dst} = map[{map}][0]+{hi} ll", 1, src=2),
    Row("LD_BTF_ID", 0x18, Kind.LOAD_IMM64, "BTF_ID", 64, False, "r{dst} = btf_id[{imm}] ll", 1, src=3),
    Row("LD_FUNC", 0x18, Kind.LOAD_IMM64, "FUNC", 64, False, "r{dst} = subprog[{far}] ll", 1, src=4),
    Row("LD_MAP_IDX", 0x18, Kind.LOAD_IMM64, "MAP_IDX", 64, False, "r{dst} = map_idx[{imm}] ll", 1, src=5),
    Row("LD_MAP_IDX_VALUE", 0x18, Kind.LOAD_IMM64, "MAP_IDX_VALUE", 64, False, "r{dst} = map_idx[{imm}][0]+{hi} ll", 1, src=6),
)

BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
NUMBER: dict[str, int] = {row.name: number for number, row in enumerate(ROWS)}


def _by_code() -> dict[int, tuple[Row, ...]]:
    groups: dict[int, list[Row]] = {}
    for row in ROWS:
        groups.setdefault(row.code, []).append(row)
    # Rows that fix more fields are asked first: SDIV (off 1) before DIV, MOVSX before MOV.
    return {
        code: tuple(sorted(rows, key=lambda r: -sum(v is not None for v in (r.src, r.off, r.imm))))
        for code, rows in groups.items()
    }


BY_CODE: dict[int, tuple[Row, ...]] = _by_code()

_STRUCT = struct.Struct("<BBhi")


class Insn(NamedTuple):
    """One eight-byte slot, `struct bpf_insn`. dst and src are 0..15, off is signed 16 bits, imm signed 32 bits.

    A 64-bit immediate takes two slots; the second has code 0 and the upper half in imm.
    """

    code: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0

    @classmethod
    def decode(cls, raw: bytes) -> Insn:
        """From eight little-endian bytes. Total: every bit pattern has exactly one value."""
        code, regs, off, imm = _STRUCT.unpack(raw)
        return cls(code, regs & 15, regs >> 4, off, imm)

    def encode(self) -> bytes:
        """To eight little-endian bytes. Raises struct.error when a field is out of its range."""
        if not (0 <= self.dst <= 15 and 0 <= self.src <= 15):
            raise struct.error(f"register field out of range: dst {self.dst}, src {self.src}")
        return _STRUCT.pack(self.code, self.dst | self.src << 4, self.off, self.imm)

    @property
    def row(self) -> Row | None:
        """The operation, or None for a word that is none."""
        return row_of(self)


def row_of(insn: Insn) -> Row | None:
    """The operation of an instruction, reserved fields clear; None for a word that is none."""
    for row in BY_CODE.get(insn.code, ()):
        if row.matches(insn):
            return row if row.reserved_clear(insn) else None
    return None


def decode_all(raw: bytes) -> tuple[Insn, ...]:
    """Slots of a program; `len(raw)` must be a multiple of 8 (ValueError)."""
    if len(raw) % 8:
        raise ValueError(f"{len(raw)} bytes are not a whole number of 8-byte instructions")
    return tuple(
        Insn(code, regs & 15, regs >> 4, off, imm) for code, regs, off, imm in _STRUCT.iter_unpack(raw)
    )


def encode_all(insns: Iterable[Insn]) -> bytes:
    """`struct bpf_insn[]`, little-endian."""
    return b"".join(insn.encode() for insn in insns)


def is_wide(insn: Insn) -> bool:
    """Whether the instruction takes a second slot (BPF_LD | BPF_IMM | BPF_DW)."""
    return insn.code == 0x18


def walk(insns: tuple[Insn, ...]) -> Iterator[tuple[int, Insn, int]]:
    """(slot number, instruction, upper half of a 64-bit immediate) with second slots passed over."""
    index = 0
    while index < len(insns):
        insn = insns[index]
        if is_wide(insn) and index + 1 < len(insns):
            yield index, insn, insns[index + 1].imm
            index += 2
        else:
            yield index, insn, 0
            index += 1
