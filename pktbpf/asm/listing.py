"""ClassicProgram -> the listings that tcpdump prints: `-d` (mnemonics), `-dd` (C array), `-ddd` (decimal).

The bytes are those of libpcap 1.10's bpf_dump: absolute jump targets, signed offsets, the words libpcap has for
ancillary loads, `unimp` for what it does not know (`ldx #pktlen` and `ret x` among it). `assemble` of `classic_text`
reads the first form, `carray` the second, `decimal` the third and its one-line variant.
"""

from __future__ import annotations

from pktbpf.abi import ancillary
from pktbpf.isa import fields
from pktbpf.isa.classic import ClassicInsn, ClassicRow
from pktbpf.program import ClassicProgram

# libpcap's words where they are not bpf_asm's.
_LIBPCAP_WORDS = {"VLAN_TAG_PRESENT": "vlanp", "RANDOM": "random", "ALU_XOR_X": "xor_x"}
_WORD_OF_K = {row.k: _LIBPCAP_WORDS.get(row.name, row.word) for row in ancillary.ROWS}
# Immediates that libpcap shows in hexadecimal; the others are signed decimal numbers.
_HEX = frozenset({"ld", "ldx", "and", "or", "xor", "jeq", "jgt", "jge", "jset"})
_UNKNOWN_TO_LIBPCAP = frozenset({"LDX_LEN"})


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x8000_0000 else value


def _operand(row: ClassicRow, k: int, number: int) -> str:
    if row.name == "JA":
        return str(_signed((number + 1 + k) & 0xFFFF_FFFF))
    if row.name.startswith("LD_ABS") and k in _WORD_OF_K:
        return f"[{_WORD_OF_K[k]}]"
    if row.operand == "#{k}" and row.mnemonic in _HEX:
        return f"#{k:#x}"
    if row.name == "RET_A":
        return ""
    return row.operand.replace("{m}", "{k}").format(k=_signed(k))


def image(insn: ClassicInsn, number: int) -> str:
    """One line of `tcpdump -d`, without its line end, for the instruction of that number."""
    row = insn.row
    if row is None or row.name in _UNKNOWN_TO_LIBPCAP:
        name, operand = "unimp", f"{insn.code:#x}"
    else:
        name, operand = row.mnemonic, _operand(row, insn.k, number)
    if fields.class_of(insn.code) == fields.JMP and insn.code & 0xF0 != fields.JA:
        return f"({number:03d}) {name:<8} {operand:<16} jt {number + 1 + insn.jt}\tjf {number + 1 + insn.jf}"
    return f"({number:03d}) {name:<8} {operand}"


def to_d(program: ClassicProgram) -> str:
    """`tcpdump -d`."""
    return "".join(image(insn, number) + "\n" for number, insn in enumerate(program.insns))


def to_dd(program: ClassicProgram) -> str:
    """`tcpdump -dd`: the elements of a C array of struct sock_filter."""
    return "".join(f"{{ {insn.code:#x}, {insn.jt}, {insn.jf}, 0x{insn.k:08x} }},\n" for insn in program.insns)


def to_ddd(program: ClassicProgram) -> str:
    """`tcpdump -ddd`: the number of instructions, then one to a line, all decimal."""
    lines = (f"{insn.code} {insn.jt} {insn.jf} {insn.k}\n" for insn in program.insns)
    return f"{len(program)}\n" + "".join(lines)


def to_xt_bpf(program: ClassicProgram) -> str:
    """`-ddd` on one line between commas, as `iptables -m bpf --bytecode` and the kernel's bpf_dbg take it."""
    return to_ddd(program).rstrip("\n").replace("\n", ",") + "\n"


def to_c(program: ClassicProgram, name: str = "code") -> str:
    """A C definition of the array, the elements as `-dd` has them."""
    elements = "".join(f"\t{line}\n" for line in to_dd(program).splitlines())
    return f"struct sock_filter {name}[] = {{\n{elements}}};\n"
