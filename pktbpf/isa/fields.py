"""The bit fields that opcodes of both instruction sets are made of (uapi linux/bpf_common.h and linux/bpf.h).

Classic opcodes are 16 bits of which only the low 8 are ever set; extended ones are 8 bits. The low three bits are the
class in both.
"""

from __future__ import annotations

# class: code & 0x07
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
JMP32 = 6  # extended: takes the place of RET
ALU64 = 7  # extended: takes the place of MISC

# loads and stores: size is code & 0x18, mode is code & 0xe0
W, H, B, DW = 0x00, 0x08, 0x10, 0x18
IMM, ABS, IND, MEM, LEN, MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
MEMSX = 0x80  # extended: sign-extending load
ATOMIC = 0xC0  # extended

SIZE_BYTES = {W: 4, H: 2, B: 1, DW: 8}

# arithmetic: operation is code & 0xf0, source is code & 0x08
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH = (n << 4 for n in range(8))
NEG, MOD, XOR, MOV, ARSH, END = (n << 4 for n in range(8, 14))
K, X = 0x00, 0x08
A = 0x10  # classic RET: the value is the accumulator

# jumps
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE, CALL, EXIT, JLT, JLE, JSLT, JSLE, JCOND = (n << 4 for n in range(15))

# classic MISC
TAX, TXA = 0x00, 0x80

# atomic operations live in the immediate
FETCH = 0x01
XCHG = 0xE0 | FETCH
CMPXCHG = 0xF0 | FETCH
LOAD_ACQ = 0x100
STORE_REL = 0x110

# pseudo sources of a 64-bit immediate (src field)
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID, PSEUDO_FUNC, PSEUDO_MAP_IDX, PSEUDO_MAP_IDX_VALUE = range(1, 7)
# pseudo sources of a call (src field)
PSEUDO_CALL, PSEUDO_KFUNC_CALL = 1, 2


def class_of(code: int) -> int:
    """The instruction class, 0..7."""
    return code & 0x07


def size_of(code: int) -> int:
    """Bytes that a load or store moves: 1, 2, 4 or 8."""
    return SIZE_BYTES[code & 0x18]
