"""Which registers and stack slots the log shows behind an instruction: those that it reads or writes itself.

Known before the instruction is checked. What a branch narrows along the way, and what a helper only reads, is not
shown.
Slots are those of the innermost frame, whatever frame a pointer belongs to. Mirrors the marks of mark_reg_scratched and
mark_stack_slot_scratched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pktbpf.abi import helpers
from pktbpf.abi.kfuncs import ITERATOR_SLOTS
from pktbpf.isa.extended import Insn
from pktbpf.isa.fields import CMPXCHG, LOAD_ACQ
from pktbpf.verifier.layout import is_call
from pktbpf.verifier.scalar import signed64
from pktbpf.verifier.state import MAP_PTR, STACK, Reg

if TYPE_CHECKING:
    from pktbpf.abi.helpers import Arg
    from pktbpf.abi.kfuncs import Param
    from pktbpf.verifier.walk import Walk

_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_CLEARED = 0x3F  # r0 to r5
_DEEPEST = 64


def touched(walk: Walk, index: int) -> tuple[int, int]:
    """Bit masks of registers and stack slots."""
    insn = walk.insns[index]
    kind = insn.code & 7
    if insn.code in (0x05, 0x06, 0xE5, 0x95):
        return 0, 0
    if insn.code == 0x85:
        # A static function is walked into; a global one clears registers as a helper does.
        static = insn.src == 1 and not walk.types.is_global(walk.layout.function_at(index + insn.imm + 1))
        return (0, 0) if static else (_CLEARED, _slots_of_call(walk, index))
    if kind == 0 and insn.code != 0x18:
        return 1 | 1 << 6 | (1 << insn.src if insn.code & 0xE0 == 0x40 else 0), 0
    regs = 1 << insn.dst
    if kind in (1, 3) or _two_registers(insn):
        regs |= 1 << insn.src
    if kind not in (1, 2, 3):
        return regs, 0
    atomic = insn.imm if insn.code & 0xE7 == 0xC3 else 0
    if kind == 1 or atomic == LOAD_ACQ:
        return regs, _span(walk.regs[insn.src], insn.off, 0)
    if atomic == CMPXCHG:
        regs |= 1
    return regs, _span(walk.regs[insn.dst], insn.off, _SIZES[insn.code & 0x18])


def _two_registers(insn: Insn) -> bool:
    kind = insn.code & 7
    return bool(insn.code & 8) and (kind in (5, 6) or (kind in (4, 7) and insn.code & 0xF0 != 0xD0))


def _span(reg: Reg, offset: int, size: int) -> int:
    """The slot of the lowest byte behind a stack pointer; for a store at a place that varies all that it may hit."""
    if reg.kind != STACK:
        return 0
    low = reg.off + offset + (reg.v[2] if reg.v[1] else signed64(reg.v[0]))
    high = reg.off + offset + reg.v[3] + size - 1 if size and reg.v[1] else low
    first, last = (-high - 1) >> 3, (-low - 1) >> 3
    return sum(1 << slot for slot in range(max(first, 0), min(last, _DEEPEST) + 1))


def _parameters(walk: Walk, index: int) -> tuple[Arg | Param, ...]:
    """What a called helper or kernel function takes."""
    insn = walk.insns[index]
    row = helpers.allowed(insn.imm, walk.privilege) if is_call(insn, 0) else None
    kfunc = walk.layout.kfunc(index)
    return row.arg_types if row is not None else kfunc.params if kfunc is not None else ()


def _slots_of_call(walk: Walk, index: int) -> int:
    """Slots of objects that a call uses, and those that it fills at a place and with a size that are known."""
    slots = 0
    for reg, size in _memory(walk, index):
        if size and reg.kind == STACK and not reg.v[1]:
            low = reg.off + reg.v[2]
            # The kernel's division rounds towards zero, so that offset 0 names the first slot.
            last = (-low - 1) >> 3 if low < 0 else -((low + 1) >> 3)
            first = (-(low + size - 1) - 1) >> 3
            slots |= sum(1 << slot for slot in range(max(first, 0), min(last, _DEEPEST) + 1))
    return slots


def _memory(walk: Walk, index: int) -> Iterator[tuple[Reg, int]]:
    """(pointer, bytes)"""
    regs = walk.regs
    for number, param in enumerate(_parameters(walk, index), 1):
        reg = regs[number]
        match param.kind:
            case "dynptr":
                yield reg, 16
            case "iter":
                yield reg, 8 * ITERATOR_SLOTS[param.of]
            case "irq":
                yield reg, 8
            case "value" if param.uninit and regs[1].kind == MAP_PTR and regs[1].obj.kind != "BLOOM_FILTER":
                yield reg, regs[1].obj.value_size
            case "mem" if param.uninit and not regs[number + 1].v[1]:
                yield reg, regs[number + 1].v[0]
            case "fixed" if param.uninit:
                yield reg, getattr(param, "size", 0)
