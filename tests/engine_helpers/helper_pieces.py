"""What random programs are made of: the maps that they may name, the formats, and the steps that all pieces share.

Every answer of a helper is folded into r7, which the program returns, so that any difference shows.
"""

from __future__ import annotations

import random
from typing import Any

from helper_lab import Spec

from pktbpf.asm.builder import (
    ADD,
    DW,
    MUL,
    R0,
    R7,
    R8,
    R9,
    R10,
    XOR,
    alu64_imm,
    alu64_reg,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip

Steps = list[Any]
FORMATS = (
    "%d", "%5d|%-6u|%06x", "%lld %llu %lx", "%s|%10s|%-10s|", "%c%c%5c%-3c|", "%pI4 %pi4", "%pI6 %pi6",
    "%px %20px|%-20px|", "%ps %pS|%8ps", "%pB", "%% %i %+d % d", "%X %08X %-8X|", "plain", "", "%pI4ab %d",
    "%pks %pus.", "%3d%%", "%s %d %s %lx", "%p", "%100d", "%-100s|", "%+5i|%-+5i|%0-5i|",
)  # fmt: skip
_TEXT = b"".join(f.encode() + b"\0" for f in FORMATS)
STARTS = [len(b"".join(f.encode() + b"\0" for f in FORMATS[:n])) for n in range(len(FORMATS))]
RO_SIZE = (len(_TEXT) + 7) // 8 * 8
NUMBERS_TEXT = ("0", "12", "-7", "  +3", "0x1f", "-0x", "077", "08", "9z", "\t99999999999999999999",
                "18446744073709551615",
                "9223372036854775808", "-9223372036854775808", "", "-", "abc", "0xfG")  # fmt: skip


SAMPLES = ((b"one", False), (b"gone", True), (b"four", False), (b"", False), (b"seven..", False), (b"last one", False))
_QUEUE = Spec("QUEUE", 0, 8, 2)
_TABLE = Spec("HASH", 4, 8, 3)

SPECS: dict[str, Spec] = {
    "arr": Spec("ARRAY", 4, 8, 4),
    "arr2": Spec("ARRAY", 4, 24, 3),
    "glob": Spec("ARRAY", 4, 64, 1),
    "hash": Spec("HASH", 4, 8, 4),
    "hash2": Spec("HASH", 8, 16, 8, flags=1),
    "pa": Spec("PERCPU_ARRAY", 4, 8, 3),
    "ph": Spec("PERCPU_HASH", 4, 8, 4),
    "lru": Spec("LRU_HASH", 4, 8, 64),
    "lrufew": Spec("LRU_HASH", 4, 8, 2),
    "lruph": Spec("LRU_PERCPU_HASH", 4, 8, 64),
    "lpm": Spec("LPM_TRIE", 8, 8, 4, flags=1),
    "timed": Spec("HASH", 4, 24, 3, special="timer"),
    "timearr": Spec("ARRAY", 4, 24, 2, special="timer"),
    "queue": Spec("QUEUE", 0, 8, 3),
    "stack": Spec("STACK", 0, 8, 3),
    "bloom": Spec("BLOOM_FILTER", 0, 8, 16),
    "in0": Spec("ARRAY", 4, 8, 2),
    "in1": Spec("ARRAY", 4, 8, 2, entries=[(bytes(4), b"inner 01")]),
    "in2": _TABLE,
    "in3": Spec("HASH", 4, 8, 3, entries=[(b"\1\0\0\0", b"inner 03")]),
    "in4": _QUEUE,
    "outer": Spec("ARRAY_OF_MAPS", 4, 4, 3, inner="in0", slots={0: "in0", 1: "in1"}),
    "houter": Spec("HASH_OF_MAPS", 4, 4, 4, inner="in0", slots={0: "in1", 2: "in0"}),
    "touter": Spec("ARRAY_OF_MAPS", 4, 4, 3, inner="in2", slots={0: "in2", 1: "in3", 2: "in3"}),
    "qouter": Spec("HASH_OF_MAPS", 4, 4, 4, inner="in4", slots={1: "in4"}),
    "ring": Spec("RINGBUF", 0, 0, 4096),
    "user": Spec("USER_RINGBUF", 0, 0, 4096, samples=SAMPLES),
    "perf": Spec("PERF_EVENT_ARRAY", 4, 4, 8),
    "stacks": Spec("STACK_TRACE", 4, 80, 4),
    "groups": Spec("CGROUP_ARRAY", 4, 4, 2),
    "ro": Spec("ARRAY", 4, RO_SIZE, 1, flags=1 << 7, entries=[(bytes(4), _TEXT.ljust(RO_SIZE, b"\0"))], frozen=True),
    "jump": Spec("PROG_ARRAY", 4, 4, 4, programs={0: "other0", 2: "other1"}),
}
NEEDS = {name: (spec.inner, *spec.slots.values()) for name, spec in SPECS.items() if spec.inner}


class Pieces:
    """What all pieces of programs are made with. r6 is the context, r7 what has been seen, r8 and r9 plain numbers."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self._labels = 0
        self._tails: Steps = []

    def gadget(self, jumps: bool) -> Steps:
        """Any piece; see Generator."""
        raise NotImplementedError

    def number(self) -> int:
        """A constant: small, an edge, or any."""
        return self.random.choice((0, 1, 2, 3, 4, 7, 255, -1, self.random.getrandbits(31), -(1 << 31)))

    def label(self) -> str:
        """A fresh name."""
        self._labels += 1
        return f"l{self._labels}"

    def fold(self, source: int = R0) -> Steps:
        """What a register holds goes into r7."""
        return [alu64_imm(MUL, R7, 31), alu64_reg(XOR, R7, source)]

    def word(self, offset: int, small: bool = True) -> Steps:
        """Eight bytes on the stack: a small number, or what r8 holds."""
        if small:
            return [st_mem(DW, R10, offset, self.random.randint(0, 5))]
        return [stx_mem(DW, R10, self.random.choice((R8, R7)), offset)]

    def pointer(self, register: int, offset: int) -> Steps:
        return [mov64_reg(register, R10), alu64_imm(ADD, register, offset)]

    def restore(self) -> Steps:
        """r9 as it was at the start, after a piece that has kept something there."""
        return [mov64_imm(R9, 1)]
