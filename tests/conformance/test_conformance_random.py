"""Random arithmetic programs: interpreter, reference and live kernel give the same 64 bits. 10,000 pairs of a program
and a memory in every run, PKTBPF_ARITHMETIC_PROGRAMS (40,000) with `-m long`."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from conformance_compare import difference
from conformance_random import POOL, program
from workers import share

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

QUICK, LONG = 10_000, int(os.environ.get("PKTBPF_ARITHMETIC_PROGRAMS", "40000"))
SCRIPT = Path(__file__).with_name("conformance_compare.py")


@pytest.fixture(scope="module")
def _kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))
    assert difference(0, 0) == ""  # compiles, once for all processes


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_all_three_agree() -> None:
    assert share(SCRIPT, range(QUICK)) == QUICK


@pytest.mark.long
@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_many_more_agree() -> None:
    assert share(SCRIPT, range(100_000, 100_000 + LONG)) == LONG


def test_every_row_of_the_kinds_is_used() -> None:
    used = {insn.row for seed in range(300) for insn in program(random.Random(seed)).insns}
    assert set(POOL) <= used
