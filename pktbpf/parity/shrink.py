"""The smallest program and the smallest packet on which two sides still differ (delta debugging, Zeller 2002).

`differs(program, packet)` says whether the disagreement is still there; it must say False for a program that either
side refuses. Instructions are taken out with their jumps mended, constants and bytes become 0, packets lose their ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pktbpf.isa.classic import BY_CODE, ClassicInsn
from pktbpf.program import ClassicProgram

Differs = Callable[[ClassicProgram, bytes], bool]
_JA = 0x05


def shrink(differs: Differs, program: ClassicProgram, packet: bytes) -> tuple[ClassicProgram, bytes]:
    """A pair for which `differs` still holds and no single simplification tried here keeps it. ValueError when it does
    not hold to begin with."""
    if not differs(program, packet):
        raise ValueError("nothing to shrink: both sides agree on this pair")
    while True:
        before = (program.insns, packet)
        program = shrink_program(_with_packet(differs, packet), program)
        packet = shrink_packet(_with_program(differs, program), packet)
        if (program.insns, packet) == before:
            return program, packet


def _with_packet(differs: Differs, packet: bytes) -> Callable[[ClassicProgram], bool]:
    return lambda program: differs(program, packet)


def _with_program(differs: Differs, program: ClassicProgram) -> Callable[[bytes], bool]:
    return lambda packet: differs(program, packet)


def shrink_packet(differs: Callable[[bytes], bool], packet: bytes) -> bytes:
    """The shortest end-cut packet that still differs, with as many bytes as possible 0."""
    size = len(packet)
    step = size
    while step:
        if step <= size and differs(packet[: size - step]):
            size -= step
        else:
            step //= 2
    packet = packet[:size]
    step = size
    while step:
        for start in range(0, size, step):
            chunk = packet[start : start + step]
            if any(chunk):
                cleared = packet[:start] + bytes(len(chunk)) + packet[start + len(chunk) :]
                if differs(cleared):
                    packet = cleared
        step //= 2
    return packet


def shrink_program(differs: Callable[[ClassicProgram], bool], program: ClassicProgram) -> ClassicProgram:
    """The program with instructions taken out and operands simplified as long as it still differs."""
    insns = list(program.insns)
    step = max(1, len(insns) // 2)
    while step:
        at = len(insns)
        while at > 0:
            start = max(0, at - step)
            shorter = without(insns, start, at)
            if shorter and differs(ClassicProgram(tuple(shorter))):
                insns = shorter
            at = min(start, len(insns))
        step //= 2
    for at in range(len(insns)):
        for simpler in _simpler(insns[at]):
            candidate = [*insns[:at], simpler, *insns[at + 1 :]]
            if differs(ClassicProgram(tuple(candidate))):
                insns = candidate
                break
    return ClassicProgram(tuple(insns))


def without(insns: Sequence[ClassicInsn], start: int, end: int) -> list[ClassicInsn]:
    """Instructions with [start, end) taken out; jumps over the gap get shorter, jumps into it land behind it."""

    def moved(pc: int, distance: int) -> int:
        target = pc + 1 + distance
        if target <= start or pc >= end:
            return distance
        return distance - (min(target, end) - max(start, pc + 1))

    out = []
    for pc, insn in enumerate(insns):
        if start <= pc < end:
            continue
        row = BY_CODE.get(insn.code)
        if insn.code == _JA:
            insn = insn._replace(k=max(0, moved(pc, insn.k)))
        elif row is not None and row.branch:
            insn = insn._replace(jt=max(0, moved(pc, insn.jt)), jf=max(0, moved(pc, insn.jf)))
        out.append(insn)
    return out


def _simpler(insn: ClassicInsn) -> Iterator[ClassicInsn]:
    """Simpler forms, the simplest first."""
    row = BY_CODE.get(insn.code)
    if row is not None and not row.branch and (insn.jt or insn.jf):
        insn = insn._replace(jt=0, jf=0)
        yield insn
    for k in (0, 1, 2, 4, 8, 16, insn.k >> 16 << 16, insn.k & 0xFFFF):
        if k < insn.k:
            yield insn._replace(k=k)
