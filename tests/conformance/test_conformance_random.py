"""Random extended programs: interpreter, reference and live kernel give the same 64 bits. 6,000 pairs of a program and
a memory in every run, 20,000 with `-m long`."""

from __future__ import annotations

import os
import random

import pytest
from conformance_random import POOL, SIZE, memory, program

from pktbpf.engine.conformance import run_memory
from pktbpf.errors import KernelUnavailable
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


def check(seed: int) -> None:
    chance = random.Random(seed)
    chosen, content = program(chance), memory(chance)
    ours = run_memory(chosen, content, "interpreter")
    assert ours == run_memory(chosen, content, "reference"), f"seed {seed}"
    assert ours == on_the_kernel(chosen, content), f"seed {seed}: the kernel differs"


@pytest.fixture(scope="module")
def kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.kernel
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("part", range(12))
def test_all_three_agree(part: int) -> None:
    for seed in range(part * 500, part * 500 + 500):
        check(seed)


@pytest.mark.long
@pytest.mark.kernel
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("part", range(20))
def test_twenty_thousand(part: int) -> None:
    for seed in range(100_000 + 1000 * part, 100_000 + 1000 * part + 1000):
        check(seed)


def test_every_row_of_the_kinds_is_used() -> None:
    used = {insn.row for seed in range(300) for insn in program(random.Random(seed)).insns}
    assert set(POOL) <= used
