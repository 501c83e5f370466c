"""Random arithmetic on three machines, seed by seed: `python tests/conformance/conformance_compare.py CPU FIRST LAST`.

Interpreter, reference engine and live kernel must give the same 64 bits.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, for `workers`

from conformance_random import SIZE, memory, program
from workers import work

from pktbpf.engine.conformance import run_memory
from pktbpf.isa.extended import Insn, encode_all
from pktbpf.kernel import syscall
from pktbpf.program import Program

PACKET = bytes(12) + b"\x08\x00" + bytes(60)


def on_the_kernel(chosen: Program, content: bytes) -> int:
    """r0 from two runs of one program over an array map, the second with the upper half."""
    area = syscall.create_map("ARRAY", 4, SIZE, 1)
    try:
        result = 0
        for shift in (0, 32):
            syscall.map_element(syscall.MAP_UPDATE_ELEM, area, bytes(4), content)
            head = (Insn(0x18, 1, 2, imm=area), Insn(0), Insn(0x85, 0, 1, imm=2), Insn(0x77, 0, imm=shift), Insn(0x95))
            loaded = syscall.load_program(encode_all((*head, *chosen.insns)))
            try:
                result |= syscall.run_once(loaded, PACKET)[0] << shift
            finally:
                os.close(loaded)
        return result
    finally:
        os.close(area)


def difference(seed: int, _cpu: int) -> str:
    """What differs between the three, "" for nothing."""
    chance = random.Random(seed)
    chosen, content = program(chance), memory(chance)
    ours, plain = run_memory(chosen, content, "interpreter"), run_memory(chosen, content, "reference")
    kernel = on_the_kernel(chosen, content)
    return "" if ours == plain == kernel else f"kernel {kernel:#x}, interpreter {ours:#x}, reference {plain:#x}"


if __name__ == "__main__":
    work(difference)
