"""Instructions in the wording of the kernel's verifier log, valid ones by their rows, others as the kernel prints them.

Mirrors print_bpf_insn, which looks at the opcode alone and prints whatever the other fields hold. Kernel addresses do
not exist here and print as 0x0.
"""

from __future__ import annotations

import re

from pktbpf.abi.helpers import helper_name
from pktbpf.isa.extended import Insn, Row
from pktbpf.verifier.tnum import M32, M64

_FIELD = re.compile(r"\bpc\{(off|far)\}|\{(\w+)\}")
_MOVE, _STORE = 0xBF, 3
_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_CAST, _PERCPU = 1, -1  # offsets of a move that stand for another operation


def insn_text(insn: Insn, second: Insn | None = None, called: str | None = None) -> str:
    """`(b7) r0 = 0`, without a line end. called: the name of the kernel function that it calls."""
    head = f"({insn.code:02x}) "
    if called is not None:
        return f"{head}call {called}#{insn.imm}"
    row = insn.row
    if row is None or row.name == "CALL_KFUNC":
        special = _special(insn)
        if special is not None:
            return special
        row = row or _row_by_opcode(insn)
        if row is None:
            return f"{head}BUG_{insn.code:02x}"
    if insn.code == 0x18:
        value = (second.imm if second is not None else 0) << 32 | insn.imm & M32
        return f"{head}r{insn.dst} = {hex(value & M64 if insn.src in (0, 4) else 0)}"

    def operand(match: re.Match[str]) -> str:
        jump, name = match.groups()
        if jump or name == "far":
            return f"{'pc' if jump else ''}{insn.off if jump == 'off' else insn.imm:+d}"
        if name == "helper":
            name = helper_name(insn.imm)
            return f"{name if name == 'unknown' else f'bpf_{name}'}#{insn.imm}"
        if name == "off":
            return f"{insn.off:+d}"
        if name == "imm" and insn.code & 7 in (5, 6):
            return hex(insn.imm & M32)
        return str(getattr(insn, name, 0))

    return head + _FIELD.sub(operand, row.syntax)


def _special(insn: Insn) -> str | None:
    """Words that the kernel prints as something else than the operation of their opcode."""
    head = f"({insn.code:02x}) "
    if insn.code == _MOVE and insn.off == _CAST:
        return f"{head}r{insn.dst} = addr_space_cast(r{insn.src}, {insn.imm >> 16 & 0xFFFF}, {insn.imm & 0xFFFF})"
    if insn.code == _MOVE and insn.off == _PERCPU:
        return f"{head}r{insn.dst} = &(void __percpu *)(r{insn.src})"
    if insn.code in (0xBC, _MOVE) and insn.off in (8, 16, 32):
        half = "w" if insn.code == 0xBC else "r"
        return f"{head}{half}{insn.dst} = (s{insn.off}){half}{insn.src}"
    if insn.code in (0xD4, 0xDC):
        return f"{head}r{insn.dst} = {'be' if insn.code & 8 else 'le'}{insn.imm} r{insn.dst}"
    if insn.code & 0xF7 == 0xD7:
        return f"{head}r{insn.dst} = bswap{insn.imm} r{insn.dst}"
    if insn.code == 0xE5 and insn.src:
        # The kernel has no sign for this comparison.
        return f"{head}if r{insn.dst} (null) {hex(insn.imm & M32)} goto pc{insn.off:+d}"
    if insn.code == 0x85 and insn.src == 1:
        return f"{head}call pc{insn.imm:+d}"
    if insn.code == 0x85 and insn.src == 2 and not insn.imm:
        return f"{head}call #0"
    if insn.code == 0x85 and insn.src > 2:
        return f"{head}call unknown#{insn.imm}"
    if insn.code & 7 == _STORE and insn.code & 0xE0 == 0xC0:
        return _atomic(insn)
    return None


def _atomic(insn: Insn) -> str:
    """An atomic operation of a width that it does not have, or no operation at all."""
    wide = insn._replace(code=insn.code & ~0x18)
    if wide.row is None:
        return f"BUG_{insn.code:02x}"
    return f"({insn.code:02x}) " + insn_text(wide).split(") ", 1)[1].replace("u32", _SIZES[insn.code & 0x18], 1)


def _row_by_opcode(insn: Insn) -> Row | None:
    """What the opcode stands for where fields that must be zero are not."""
    fields: tuple[dict[str, int], ...] = (
        {"off": 0}, {"imm": 0}, {"src": 0}, {"dst": 0}, {"src": 0, "off": 0, "imm": 0}, {"dst": 0, "src": 0, "off": 0},
        {"dst": 0, "src": 0, "off": 0, "imm": 0},
    )  # fmt: skip
    for zero in fields:
        plain = insn._replace(**zero)
        if plain.row is not None:
            return plain.row
    return None
