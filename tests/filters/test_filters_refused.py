"""The programs of filters/refused: the kernel's errno, the instruction at fault, and the live kernel's own word."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from filter_cases import FILTERS, header

import pktbpf
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

REFUSED = sorted((FILTERS / "refused").iterdir())
each_refused = pytest.mark.parametrize("path", REFUSED, ids=[path.name for path in REFUSED])
RET = ClassicInsn(0x06, 0, 0, 0)


def attached(program: ClassicProgram) -> int:
    """The errno of the live kernel, 0 for none; skips where it cannot be asked."""
    from pktbpf.kernel.unix_rig import UnixRig

    try:
        rig = UnixRig()
    except pktbpf.KernelUnavailable as unavailable:
        pytest.skip(str(unavailable))
    with rig:
        return rig.attach_classic(program.to_bytes())


def test_there_are_enough() -> None:
    assert len(REFUSED) >= 12


@each_refused
def test_refused_where_it_says(path: Path) -> None:
    found = header(path)
    program = pktbpf.load(path)
    with pytest.raises(pktbpf.ProgramRefused) as caught:
        pktbpf.verify(program)
    assert caught.value.errno == getattr(errno, found["errno"][0])
    assert caught.value.insn == int(found["instruction"][0])
    assert "\n" not in str(caught.value)


@each_refused
def test_mended_by_what_the_reason_says(path: Path) -> None:
    """Nothing else is wrong: with a harmless instruction in place of the one at fault and a ret behind, it passes."""
    program = pktbpf.load(path)
    insns = list(program.insns)
    at = int(header(path)["instruction"][0])
    insns[at] = ClassicInsn(0x00, 0, 0, 0)
    insns.append(RET)
    pktbpf.verify(ClassicProgram(tuple(insns)))


@pytest.mark.kernel
@each_refused
def test_live_kernel_refuses(path: Path) -> None:
    assert attached(pktbpf.load(path)) == getattr(errno, header(path)["errno"][0])


@pytest.mark.parametrize("count", [0, 4097, 5000])
def test_length(count: int) -> None:
    with pytest.raises(pktbpf.ProgramRefused) as caught:
        pktbpf.verify(ClassicProgram((RET,) * count))
    assert (caught.value.errno, caught.value.insn) == (errno.EINVAL, None)


@pytest.mark.parametrize("count", [1, 4096])
def test_length_within_the_limit(count: int) -> None:
    pktbpf.verify(ClassicProgram((RET,) * count))


@pytest.mark.kernel
@pytest.mark.parametrize(("count", "number"), [(0, errno.EINVAL), (1, 0), (4096, 0), (4097, errno.EINVAL)])
def test_length_live(count: int, number: int) -> None:
    assert attached(ClassicProgram((RET,) * count)) == number
