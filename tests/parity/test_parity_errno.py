"""Our checks and SO_ATTACH_FILTER: the same programs admitted, the others refused with the same errno."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pktbpf.abi.ancillary import AD_BASE, LL_BASE, NET_BASE
from pktbpf.errors import KernelUnavailable, ProgramRefused
from pktbpf.isa.classic import ROWS, ClassicInsn
from pktbpf.kernel.namespace import Namespace
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.parity.admission import disagreements, our_errno
from pktbpf.parity.programs import ProgramMaker, insn
from pktbpf.program import ClassicProgram
from pktbpf.translator import check, kernel_size

pytestmark = pytest.mark.kernel

RET = insn("RET_K", 1)
ROOM = 4 << 20
EDGES = (0, 1, 15, 16, 17, 31, 32, 33, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


@pytest.fixture(scope="module")
def rig() -> Iterator[UnixRig]:
    try:
        opened = UnixRig()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with opened:
        yield opened


def _program(*insns: ClassicInsn) -> ClassicProgram:
    return ClassicProgram(insns)


def test_every_opcode_alone_and_before_a_return(rig: UnixRig) -> None:
    codes = [*range(0x200), *range(0x200, 0x10000, 97), 0xFFFF]
    assert not disagreements((_program(ClassicInsn(code, 0, 0, k)) for code in codes for k in (0, 1)), rig)
    assert not disagreements((_program(ClassicInsn(code, 0, 0, k), RET) for code in codes for k in (0, 1, 40)), rig)


def test_operand_edges_of_every_operation(rig: UnixRig) -> None:
    def cases() -> Iterator[ClassicProgram]:
        for row in ROWS:
            for k in (*EDGES, *(base + n & 0xFFFFFFFF for base in (AD_BASE, NET_BASE, LL_BASE) for n in (-1, 0, 1))):
                for jt, jf in ((0, 0), (1, 0), (0, 1), (2, 0), (255, 255)):
                    made = ClassicInsn(row.code, jt, jf, k)
                    yield _program(made, RET)
                    yield _program(insn("ST", 0), made, RET, RET)

    assert not disagreements(cases(), rig)


def test_every_offset_of_the_ancillary_range(rig: UnixRig) -> None:
    assert not disagreements((_program(insn("LD_ABS_W", k), RET) for k in range(AD_BASE - 4, AD_BASE + 0x1000)), rig)


def test_random_programs_valid_and_damaged(rig: UnixRig) -> None:
    maker = ProgramMaker(7)
    damaged = [maker.invalid() for _ in range(6000)]
    assert not disagreements(damaged, rig)
    refused = sum(our_errno(program)[0] != 0 for program in damaged)
    assert 0.5 < refused / len(damaged) < 0.95
    valid = [maker.valid() for _ in range(1500)]
    assert not disagreements(valid, rig)
    assert not any(our_errno(program)[0] for program in valid)


def test_long_programs(rig: UnixRig) -> None:
    maker = ProgramMaker(8)
    programs = [maker.long() for _ in range(80)]
    assert not disagreements(programs, rig)
    assert {our_errno(program)[0] for program in programs} == {0, 12, 22}


def _of_size(size: int, filler: ClassicInsn) -> ClassicProgram:
    """A program whose converted length is `size`."""
    begin, end = [insn("LD_IMM", 0), filler], [RET]
    missing = size - kernel_size.converted_size([*begin, *end])
    count = missing // kernel_size.length(filler)
    padding = missing - count * kernel_size.length(filler)
    return ClassicProgram((*begin, *[filler] * count, *[insn("TAX")] * padding, *end))


@pytest.mark.parametrize("filler", ["LDX_MSH", "LD_ABS_W", "LD_IND_B"])
def test_memory_limit_is_met_to_the_instruction(rig: UnixRig, filler: str) -> None:
    programs = [_of_size(size, insn(filler, 14)) for size in range(16_340, 16_400)]
    assert not disagreements(programs, rig)
    assert {our_errno(program)[0] for program in programs} == {0, 12}


@pytest.mark.parametrize(
    "jump",
    [insn("JA", 0), insn("JEQ_K", 5, 1, 0), insn("JEQ_K", 0x80000000, 0, 1), insn("JEQ_K", 0x80000000, 1, 1),
     insn("JSET_X", 0, 0, 1), insn("JGT_X", 0, 1, 1)],
)  # fmt: skip
def test_jumps_that_stand_beyond_the_reach_of_sixteen_bits(rig: UnixRig, jump: ClassicInsn) -> None:
    programs = []
    for place in range(32_755, 32_780):
        body = _of_size(place, insn("LDX_MSH", 14)).insns[:-1]
        programs.append(ClassicProgram((*body, jump, insn("TAX"), insn("TAX"), insn("RET_A"))))
    assert not disagreements(programs, rig)
    assert {our_errno(program)[0] for program in programs} == {12, 22}


def test_far_jumps(rig: UnixRig) -> None:
    load = insn("LDX_MSH", 14)
    programs = []
    for count in range(1715, 1735):
        for extra in range(0, 20, 3):
            body = [load] * count + [insn("TAX")] * extra
            programs.append(ClassicProgram((insn("JA", len(body)), *body, insn("RET_A"))))
    assert not disagreements(programs, rig)


@pytest.fixture(scope="module")
def roomy() -> Iterator[UnixRig]:
    """A rig in a network namespace with a large net.core.optmem_max, so that only the jumps decide."""
    try:
        space = Namespace()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    try:
        if not space.configure("core/optmem_max", ROOM):
            pytest.skip("net.core.optmem_max is not a setting of the network namespace on this kernel")
        with space.entered():
            opened = UnixRig()
        with opened:
            yield opened
    finally:
        space.close()


def _errno_with_room(program: ClassicProgram) -> int:
    try:
        check(program, optmem_max=ROOM)
    except ProgramRefused as refusal:
        return refusal.errno
    return 0


def test_converted_jumps_without_the_memory_limit(roomy: UnixRig) -> None:
    maker = ProgramMaker(9)
    programs = [maker.long() for _ in range(60)]
    tail = (insn("TAX"), insn("TAX"), insn("RET_A"))
    for jump in (insn("JA", 1), insn("JEQ_K", 5, 1, 0), insn("JEQ_K", 0x80000000, 1, 1), insn("JSET_X", 0, 0, 1)):
        bodies = [_of_size(place, insn("LDX_MSH", 14)).insns[:-1] for place in range(32_758, 32_774)]
        programs += [ClassicProgram((*body, jump, *tail)) for body in bodies]
    answers = [roomy.attach_classic(program.to_bytes()) for program in programs]
    assert [_errno_with_room(program) for program in programs] == answers
    assert set(answers) == {0, 22}


def test_lengths_around_the_limits(rig: UnixRig) -> None:
    programs = [ClassicProgram((insn("TAX"),) * (n - 1) + (RET,)) for n in (1, 2, 4095, 4096, 4097, 5000, 65_535)]
    assert not disagreements([ClassicProgram(()), *programs], rig)
