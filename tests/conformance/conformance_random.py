"""Random extended programs from every row of the arithmetic, memory and jump kinds: any seed gives a valid program.

Registers begin with values from memory, so that the verifier knows nothing of them; at the end all of them and the
whole memory are folded into r0.
"""

from __future__ import annotations

import random
import struct

from pktbpf.isa.extended import ROWS, Insn, Kind, Row
from pktbpf.program import Program

SIZE = 128
REGISTERS = (0, 2, 3, 4, 5, 6, 7, 8, 9)
EDGES = (0, 1, -1, 2, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, -0x80000000, 0xFFFFFFFF,
         0x100000000, -0x8000000000000000, 0x7FFFFFFFFFFFFFFF)  # fmt: skip
KINDS = (Kind.ALU, Kind.SWAP, Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.BRANCH, Kind.JUMP)
POOL = tuple(row for row in ROWS if row.kind in KINDS)
_NO_ZERO = ("DIV", "MOD", "SDIV", "SMOD")
# A 32-bit compare-and-exchange zeroes the upper half of r0, for which the kernel's verifier adds an instruction; Linux
# 6.18 forgets it where the state behind is like one that it has seen and only that one's r0 was read whole.
_ATOMIC32, _CMPXCHG, _EXTEND = 0xC3, 0xF1, Insn(0xBC)


def memory(chance: random.Random) -> bytes:
    """Eight-byte values, half of them edges."""
    values = (chance.choice(EDGES) if chance.random() < 0.5 else chance.getrandbits(64) for _ in range(SIZE // 8))
    return b"".join(struct.pack("<Q", value & (1 << 64) - 1) for value in values)


def program(chance: random.Random, length: int = 30) -> Program:
    """`length` random instructions between the loading of the registers and the folding of the results."""
    insns = [Insn(0x79, register, 1, 8 * n) for n, register in enumerate(REGISTERS)]
    for n in range(length):
        insns.append(instruction(chance, chance.choice(POOL), length - n - 1))
        if insns[-1].code == _ATOMIC32 and insns[-1].imm == _CMPXCHG:
            insns.append(_EXTEND)
    for register in REGISTERS[1:]:
        insns += [Insn(0x27, 0, imm=31), Insn(0xAF, 0, register)]
    for at in range(0, SIZE, 8):
        insns += [Insn(0x79, 2, 1, at), Insn(0x27, 0, imm=33), Insn(0xAF, 0, 2)]
    return Program((*insns, Insn(0x95)))


def instruction(chance: random.Random, row: Row, left: int) -> Insn:
    """One instruction of a row. left: how many random instructions follow, which bounds a jump."""
    dst, src = chance.choice(REGISTERS), chance.choice(REGISTERS)
    reach = chance.randrange(min(left, 4) + 1)
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC):
        step = row.size if row.kind is Kind.ATOMIC else 1
        at = step * chance.randrange((SIZE - row.size) // step + 1)
        if row.kind is Kind.LOAD or row.operation == "LOAD_ACQ":
            return Insn(row.code, dst, 1, at, row.imm or 0)
        imm = row.imm if row.imm is not None else 0 if row.reg else _immediate(chance)
        return Insn(row.code, 1, src if row.reg else 0, at, imm)
    if row.kind is Kind.JUMP:
        return Insn(row.code)  # to the next one: behind a longer jump the kernel would see unreachable code
    imm = row.imm if row.imm is not None else 0
    if "imm" in row.uses:
        imm = _immediate(chance)
        if row.operation in ("LSH", "RSH", "ARSH"):
            imm = chance.randrange(row.bits)
        elif row.operation in _NO_ZERO:
            imm = imm or 3
    off = reach if row.kind is Kind.BRANCH else row.off or 0
    return Insn(row.code, dst, src if row.reg else 0, off, imm)


def _immediate(chance: random.Random) -> int:
    value = chance.choice(EDGES) if chance.random() < 0.5 else chance.getrandbits(32)
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000
