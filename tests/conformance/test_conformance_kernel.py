"""The conformance cases on the live kernel, which is the judge of the expected results.

The program becomes a function of a small socket filter that hands it a map value as memory and returns one half of r0.
"""

from __future__ import annotations

import os

import pytest
from conformance_cases import Case, cases

from pktbpf.errors import KernelUnavailable
from pktbpf.isa.extended import Insn, encode_all
from pktbpf.kernel import syscall

CASES = [case for case in cases() if case.kernel]
PACKET = bytes(12) + b"\x08\x00" + bytes(60)
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as error:
        pytest.skip(str(error))


def half(case: Case, shift: int) -> int:
    """Bits shift .. shift+31 of r0. Raises OSError when the kernel refuses the program."""
    size = len(case.memory)
    area = syscall.create_map("ARRAY", 4, max(size, 1), 1)
    try:
        if size:
            syscall.map_element(syscall.MAP_UPDATE_ELEM, area, bytes(4), case.memory)
        first = (Insn(0x18, 1, 2, imm=area), Insn(0)) if size else (Insn(0xB7, 1), Insn(0xB7, 1))
        insns = (*first, Insn(0xB7, 2, imm=size), Insn(0x85, 0, 1, imm=2), Insn(0x77, 0, imm=shift), Insn(0x95))
        loaded = syscall.load_program(encode_all((*insns, *case.program.insns)))
        try:
            return syscall.run_once(loaded, PACKET)[0]
        finally:
            os.close(loaded)
    finally:
        os.close(area)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_case(case: Case) -> None:
    if case.result is None:
        with pytest.raises(OSError):
            half(case, 0)
    else:
        assert half(case, 32) << 32 | half(case, 0) == case.result
