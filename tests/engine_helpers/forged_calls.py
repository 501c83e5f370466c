"""Calls with forged arguments: `python tests/engine_helpers/forged_calls.py FIRST LAST`, a process of its own.

Unchecked programs fill their stack with random words, which are iterators, dynptrs and timers to the functions called,
and pass pointers into any region and sizes near the ends of 32 and 64 bits. Nothing outside the program's memory may
change, and both engines must take kernel functions alike. Prints how many calls ended without a fault.
"""

from __future__ import annotations

import random
import sys

from helper_lab import Ours, Spec, assemble

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import BY_NAME
from pktbpf.asm.builder import (
    ADD,
    DW,
    R0,
    R10,
    Step,
    alu64_imm,
    call,
    call_kfunc,
    exit_,
    ld_imm64,
    ld_map,
    ld_map_value,
    mov64_reg,
    stx_mem,
)
from pktbpf.engine.interpreter import RUNNABLE

# Those that go on elsewhere, and those whose answers are the machine's or hang on what was traced before.
APART = ("tail_call", "loop", "for_each_map_elem", "user_ringbuf_drain", "timer_start", "timer_set_callback",
         "get_prandom_u32", "trace_printk", "trace_vprintk", "snprintf")  # fmt: skip
HELPERS = sorted(RUNNABLE & {row.id for row in BY_NAME.values()} - {BY_NAME[name].id for name in APART})
KFUNCS = sorted(name for name, number in kfuncs.NUMBERS.items() if number in RUNNABLE)
SPECS = {
    "one": Spec("ARRAY", 4, 64, 1), "hash": Spec("HASH", 4, 8, 4), "ring": Spec("RINGBUF", 0, 0, 4096),
    "ro": Spec("ARRAY", 4, 32, 1, flags=1 << 7, entries=[(bytes(4), b"text\0more\0".ljust(32, b"\0"))], frozen=True),
    "perf": Spec("PERF_EVENT_ARRAY", 4, 4, 2), "lru": Spec("LRU_HASH", 4, 8, 64),
}  # fmt: skip
PACKET = bytes(range(64, 128))


def number(chance: random.Random) -> int:
    """A pointer into some region, a size at an edge, or anything."""
    low = chance.choice((0, 1, 4, 8, 16, 40, 63, 64, 448, 496, 504, 511, 512, (1 << 32) - 8, chance.getrandbits(12)))
    return chance.choice((
        chance.choice((1, 1, 3, 4)) << 32 | low, chance.randrange(16, 400) << 32 | low, low, (1 << 64) - low - 1,
        (1 << 32) - 1 - low & 0xFFFFFFFF, chance.getrandbits(64), 1 << 62 | chance.randrange(16, 400) << 32,
        chance.choice((1, 2, 3)) << 60 | chance.getrandbits(36),
    ))  # fmt: skip


def argument(chance: random.Random, register: int) -> list[Step]:
    """Something in a register: often what a function may take."""
    kind = chance.random()
    if kind < 0.35:
        return [mov64_reg(register, R10), alu64_imm(ADD, register, -8 * chance.randrange(0, 66))]
    if kind < 0.5:
        return [ld_map(register, chance.choice(list(SPECS)))]
    if kind < 0.6:
        return [ld_map_value(register, chance.choice(("one", "ro")), chance.choice((0, 8, 24)))]
    return [ld_imm64(register, chance.randrange(0, 70) if kind < 0.75 else number(chance))]


def program(chance: random.Random) -> tuple[list[Step], bool]:
    """A few calls over a forged stack; whether they are of kernel functions only, which both engines take alike. Of
    helpers they differ in what no verified program does, such as pointers to no bytes."""
    steps: list[Step] = []
    alike = chance.random() < 0.6
    for _ in range(3):
        for offset in range(-64, 0, 8):
            if chance.random() < 0.7:
                steps += [ld_imm64(R0, number(chance)), stx_mem(DW, R10, R0, offset)]
        for register in range(1, 6):
            steps += argument(chance, register)
        helper = not alike and chance.random() < 0.7
        steps.append(call(chance.choice(HELPERS)) if helper else call_kfunc(chance.choice(KFUNCS)))
    return [*steps, exit_()], alike


def main() -> None:
    """Run the seeds; an AssertionError names the first that differs."""
    whole = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        answers = []
        for engine in ("interpreter", "reference"):
            steps, alike = program(random.Random(seed))
            side = Ours({"main": assemble(steps, SPECS)}, SPECS, engine=engine)
            data = bytearray(PACKET)
            outcome = side.filter.outcome(data)
            assert bytes(data) == PACKET, f"seed {seed}: {engine} wrote into the packet"
            assert side.maps["ro"].lookup(bytes(4))[:10] == b"text\0more\0", f"seed {seed}: {engine} wrote read-only"
            answers.append((int(outcome.verdict[0]), int(outcome.fault[0])))
        # Numbers of maps differ from one side to the other, so results are compared by their faults.
        assert not alike or (answers[0][1] != 0) == (answers[1][1] != 0), f"seed {seed}: {answers}"
        whole += answers[0][1] == 0
    print(whole)


if __name__ == "__main__":
    main()
