"""ClassicProgram -> bpf_asm text that assembles back to the same bytes, whatever the bytes are.

Known operations are written as the kernel's bpf_asm takes them, jumps with labels (the program's own where it has
them). What the language has no words for is stated in forms that only `classic_text` reads: `.insn code, jt, jf, k` for
unknown opcodes and for values in unused fields, instruction numbers (`jt 9 jf 12`, `ja 300`) for jumps out of the
program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pktbpf.abi import ancillary
from pktbpf.asm.classic_text import EXTENSIONS, MNEMONICS, RET_X
from pktbpf.isa.classic import ClassicInsn, ClassicRow
from pktbpf.program import ClassicProgram

_INVERTED = {"jeq": "jneq", "jge": "jlt", "jgt": "jle"}
# Immediates that are patterns rather than amounts.
_HEX = frozenset({"and", "or", "xor", "jset", "jeq", "jneq"})
_WORD_OF_K = {row.k: row.word for row in ancillary.ROWS if row.word in EXTENSIONS}
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]+")
_MASK32 = 0xFFFF_FFFF


def _signed(value: int) -> int:
    return value - (1 << 32) if value & 0x8000_0000 else value


def has_words(insn: ClassicInsn) -> bool:
    """Whether the language can state this instruction: a known opcode with nothing in the fields it does not use."""
    row = insn.row
    if row is None:
        return insn == (RET_X, 0, 0, 0)
    if not row.branch and (insn.jt or insn.jf):
        return False
    return bool("{" in row.operand or not insn.k)


def jump_targets(insn: ClassicInsn, number: int) -> tuple[int, ...]:
    """Instruction numbers that the instruction names as targets; a not-taken branch that goes on is none."""
    row = insn.row
    if row is None or not has_words(insn):
        return ()
    if row.name == "JA":
        return (number + 1 + _signed(insn.k),)
    if not row.branch:
        return ()
    taken, other = number + 1 + insn.jt, number + 1 + insn.jf
    if not insn.jf:
        return (taken,)
    return (other,) if not insn.jt and row.mnemonic in _INVERTED else (taken, other)


def label_names(program: ClassicProgram) -> dict[int, str]:
    """A name for every instruction that is jumped to: the program's own, else `L` and the instruction number."""
    count = len(program)
    targets = {target for number, insn in enumerate(program.insns) for target in jump_targets(insn, number)}
    own = {number: name for number, name in program.labels.items() if _usable(name)}
    names: dict[int, str] = {}
    taken: set[str] = set(own.values())
    for target in sorted(t for t in targets if 0 <= t < count):
        name = own.pop(target, None) or f"L{target:02d}"
        while target not in program.labels and name in taken:
            name += "_"
        taken.add(name)
        names[target] = name
    return names


def _usable(name: str) -> bool:
    return bool(_LABEL.fullmatch(name)) and name.lower() not in MNEMONICS and name.lower() not in EXTENSIONS


def _operand(row: ClassicRow, k: int, mnemonic: str) -> str:
    if row.name.startswith("LD_ABS") and k in _WORD_OF_K:
        return _WORD_OF_K[k]
    if row.operand == "#pktlen":
        return "#len"  # the kernel's assembler knows no other word
    if mnemonic in _HEX:
        value = f"{k:#x}"
    else:
        value = str(_signed(k) if k >= 0xFFF0_0000 else k)
    return row.operand.replace("{m}", "{k}").format(k=value)


def _branch(row: ClassicRow, insn: ClassicInsn, number: int, names: Mapping[int, str]) -> str:
    targets = jump_targets(insn, number)
    if any(target not in names for target in targets):
        taken, other = number + 1 + insn.jt, number + 1 + insn.jf
        return f"{row.mnemonic} {_operand(row, insn.k, row.mnemonic)} jt {taken} jf {other}"
    mnemonic = row.mnemonic
    if not insn.jt and insn.jf:
        mnemonic = _INVERTED.get(mnemonic, mnemonic)
    return ", ".join((f"{mnemonic} {_operand(row, insn.k, mnemonic)}", *(names[target] for target in targets)))


def line(insn: ClassicInsn, number: int, names: Mapping[int, str]) -> str:
    """One instruction as text; `names` has the labels of its targets."""
    row = insn.row
    if not has_words(insn):
        return f".insn {insn.code:#04x}, {insn.jt}, {insn.jf}, {insn.k:#x}"
    if row is None:
        return "ret x"
    if row.name == "JA":
        target = number + 1 + _signed(insn.k)
        return f"ja {names.get(target, target)}"
    if row.branch:
        return _branch(row, insn, number, names)
    return f"{row.mnemonic} {_operand(row, insn.k, row.mnemonic)}".rstrip()


def disassemble(program: ClassicProgram) -> str:
    """bpf_asm text, one instruction to a line, labels on the left."""
    names = label_names(program)
    width = max((len(name) for name in names.values()), default=0) + 2 if names else 0
    lines = []
    for number, insn in enumerate(program.insns):
        label = f"{names[number]}:" if number in names else ""
        lines.append(f"{label:<{width}}{line(insn, number, names)}\n")
    return "".join(lines)
