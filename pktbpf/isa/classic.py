"""The classic instruction set, one row per operation (uapi linux/filter.h; McCanne and Jacobson 1993).

A row carries the opcode, the mnemonic and the operand as the kernel's bpf_asm language writes it; assembler,
disassembler and checks derive from it. Ancillary extensions are the ABS loads whose K is in `abi.ancillary`.
`ClassicInsn` is total: any eight bytes are one, and `row` is None where the opcode is none of these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class ClassicRow:
    """operand: bpf_asm wording with {k}, {m} (scratch slot), or empty. branch: the two-target conditional jumps."""

    name: str
    code: int
    mnemonic: str
    operand: str
    branch: bool = False


ROWS: tuple[ClassicRow, ...] = (
    ClassicRow("LD_IMM", 0x00, "ld", "#{k}"),
    ClassicRow("LD_ABS_W", 0x20, "ld", "[{k}]"),
    ClassicRow("LD_ABS_H", 0x28, "ldh", "[{k}]"),
    ClassicRow("LD_ABS_B", 0x30, "ldb", "[{k}]"),
    ClassicRow("LD_IND_W", 0x40, "ld", "[x + {k}]"),
    ClassicRow("LD_IND_H", 0x48, "ldh", "[x + {k}]"),
    ClassicRow("LD_IND_B", 0x50, "ldb", "[x + {k}]"),
    ClassicRow("LD_MEM", 0x60, "ld", "M[{m}]"),
    ClassicRow("LD_LEN", 0x80, "ld", "#pktlen"),
    ClassicRow("LDX_IMM", 0x01, "ldx", "#{k}"),
    ClassicRow("LDX_MEM", 0x61, "ldx", "M[{m}]"),
    ClassicRow("LDX_LEN", 0x81, "ldx", "#pktlen"),
    ClassicRow("LDX_MSH", 0xB1, "ldxb", "4*([{k}]&0xf)"),
    ClassicRow("ST", 0x02, "st", "M[{m}]"),
    ClassicRow("STX", 0x03, "stx", "M[{m}]"),
    ClassicRow("ADD_K", 0x04, "add", "#{k}"),
    ClassicRow("ADD_X", 0x0C, "add", "x"),
    ClassicRow("SUB_K", 0x14, "sub", "#{k}"),
    ClassicRow("SUB_X", 0x1C, "sub", "x"),
    ClassicRow("MUL_K", 0x24, "mul", "#{k}"),
    ClassicRow("MUL_X", 0x2C, "mul", "x"),
    ClassicRow("DIV_K", 0x34, "div", "#{k}"),
    ClassicRow("DIV_X", 0x3C, "div", "x"),
    ClassicRow("OR_K", 0x44, "or", "#{k}"),
    ClassicRow("OR_X", 0x4C, "or", "x"),
    ClassicRow("AND_K", 0x54, "and", "#{k}"),
    ClassicRow("AND_X", 0x5C, "and", "x"),
    ClassicRow("LSH_K", 0x64, "lsh", "#{k}"),
    ClassicRow("LSH_X", 0x6C, "lsh", "x"),
    ClassicRow("RSH_K", 0x74, "rsh", "#{k}"),
    ClassicRow("RSH_X", 0x7C, "rsh", "x"),
    ClassicRow("NEG", 0x84, "neg", ""),
    ClassicRow("MOD_K", 0x94, "mod", "#{k}"),
    ClassicRow("MOD_X", 0x9C, "mod", "x"),
    ClassicRow("XOR_K", 0xA4, "xor", "#{k}"),
    ClassicRow("XOR_X", 0xAC, "xor", "x"),
    ClassicRow("JA", 0x05, "ja", "{k}"),
    ClassicRow("JEQ_K", 0x15, "jeq", "#{k}", True),
    ClassicRow("JEQ_X", 0x1D, "jeq", "x", True),
    ClassicRow("JGT_K", 0x25, "jgt", "#{k}", True),
    ClassicRow("JGT_X", 0x2D, "jgt", "x", True),
    ClassicRow("JGE_K", 0x35, "jge", "#{k}", True),
    ClassicRow("JGE_X", 0x3D, "jge", "x", True),
    ClassicRow("JSET_K", 0x45, "jset", "#{k}", True),
    ClassicRow("JSET_X", 0x4D, "jset", "x", True),
    ClassicRow("RET_K", 0x06, "ret", "#{k}"),
    ClassicRow("RET_A", 0x16, "ret", "a"),
    ClassicRow("TAX", 0x07, "tax", ""),
    ClassicRow("TXA", 0x87, "txa", ""),
)

BY_CODE: dict[int, ClassicRow] = {row.code: row for row in ROWS}
BY_NAME: dict[str, ClassicRow] = {row.name: row for row in ROWS}

_STRUCT = struct.Struct("<HBBI")


class ClassicInsn(NamedTuple):
    """`struct sock_filter`: code 16 bits, jt and jf 8 bits (distances from the next instruction), k 32 bits."""

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0

    @classmethod
    def decode(cls, raw: bytes) -> ClassicInsn:
        """From eight little-endian bytes. Total."""
        return cls(*_STRUCT.unpack(raw))

    def encode(self) -> bytes:
        """To eight little-endian bytes. Raises struct.error when a field is out of its range."""
        return _STRUCT.pack(*self)

    @property
    def row(self) -> ClassicRow | None:
        """The operation, or None for an opcode that is none."""
        return BY_CODE.get(self.code)


def decode_all(raw: bytes) -> tuple[ClassicInsn, ...]:
    """Instructions of a filter; `len(raw)` must be a multiple of 8 (ValueError)."""
    if len(raw) % 8:
        raise ValueError(f"{len(raw)} bytes are not a whole number of 8-byte instructions")
    return tuple(ClassicInsn(*fields) for fields in _STRUCT.iter_unpack(raw))


def encode_all(insns: Iterable[ClassicInsn]) -> bytes:
    """`struct sock_filter[]`, little-endian."""
    return b"".join(insn.encode() for insn in insns)
