"""The comparison can fail, shrinking ends at the smallest pair, and generators repeat themselves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import numpy as np
import pytest

from pktbpf.engine.base import Fault, Outcome
from pktbpf.errors import KernelUnavailable, ProgramRefused
from pktbpf.filter import verify
from pktbpf.isa.classic import ClassicInsn
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.observed import DROPPED, UNDELIVERED, Observed, Seen
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.parity.compare import Comparison, Session, compare, judge
from pktbpf.parity.packets import PacketMaker, checksum
from pktbpf.parity.programs import ProgramMaker, insn
from pktbpf.parity.shrink import shrink, without
from pktbpf.program import ClassicProgram, Program, Verified


@pytest.fixture
def rig() -> Iterator[UnixRig]:
    try:
        opened = UnixRig()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with opened:
        yield opened


def _observed(lengths: list[int]) -> Observed:
    return Observed.of(lengths, [None if n == UNDELIVERED else Seen(b"abcdef", 0, 6, {}) for n in lengths])


def _outcome(values: list[int], faults: list[int] | None = None) -> Outcome:
    return Outcome(np.array(values, dtype=np.uint32), np.array(faults or [0] * len(values), dtype=np.uint8))


def test_judge_sees_each_kind_of_difference() -> None:
    observed = _observed([6, 3, DROPPED, 6, DROPPED, UNDELIVERED])
    outcome = _outcome([6, 4, 6, 0, 0, 6], [0, 0, 0, 0, Fault.INDETERMINATE, 0])
    result = judge(observed, outcome, np.array([6, 4, 6, 0, 0, 6]))
    assert result.differing == (1, 2, 3, 4)
    assert (result.pairs, result.equal, result.undelivered, result.accepted) == (5, 1, 1, 3)
    assert result.first is not None
    assert (result.first.index, result.first.ours.kept, result.first.kernel.kept) == (1, 4, 3)
    assert result.first.packet == b"abcdef"


class _Deaf(UnixRig):
    """A kernel that can no longer be asked when the program is to be attached."""

    def attach_extended(self, program_fd: int) -> int:
        raise KernelUnavailable(errno.EPERM, "SO_ATTACH_BPF")


def test_a_session_that_cannot_start_keeps_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def load(loaded: Loaded, program: Program) -> int:
        made.append(os.open(os.devnull, os.O_RDONLY))
        loaded._programs[id(program)] = made[-1]
        return made[-1]

    monkeypatch.setattr(Loaded, "program", load)
    verified = verify(ClassicProgram((insn("RET_K", 1),)))
    with _Deaf() as rig, pytest.raises(KernelUnavailable), Session(verified, rig, extended=True):
        pass
    assert len(made) == 1
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(made[0])


def test_sums_keep_packet_numbers() -> None:
    observed, outcome = _observed([6, DROPPED]), _outcome([6, 6])
    one = judge(observed, outcome, np.array([6, 6]))
    total = Comparison() + judge(_observed([6]), _outcome([6]), np.array([6])) + one + one
    assert total.differing == (2, 4)
    assert total.first is not None
    assert total.first.index == 2
    assert total.packets == 5


@pytest.mark.kernel
def test_a_wrong_translation_is_found_and_shrunk(rig: UnixRig) -> None:
    """Our side runs `ret a` with A one too large wherever the program adds a constant."""

    def wrong(program: ClassicProgram) -> Verified:
        spoilt = [i._replace(k=i.k + 1) if i.code == insn("ADD_K").code else i for i in program.insns]
        translated = verify(ClassicProgram(tuple(spoilt))).program
        return Verified(Program(translated.insns, classic=program))

    def differs(program: ClassicProgram, packet: bytes) -> bool:
        try:
            return bool(compare(wrong(program), [packet], rig).differing)
        except ProgramRefused:
            return False

    program = ClassicProgram(
        (insn("LD_ABS_B", 3), insn("TAX"), insn("JEQ_K", 9, 1, 0), insn("ADD_K", 2), insn("AND_K", 31), insn("ADD_X"),
         insn("RET_A"), insn("RET_K", 0))
    )  # fmt: skip
    packet = bytes(range(60))
    smallest, shortest = shrink(differs, program, packet)
    assert smallest.insns == (insn("ADD_K", 0), insn("RET_A"))
    assert shortest == b""  # the kernel drops it, the spoilt program takes it
    with pytest.raises(ValueError, match="agree"):
        shrink(differs, ClassicProgram((insn("RET_A"),)), packet)


def test_taking_instructions_out_mends_jumps() -> None:
    insns = [insn("JEQ_K", 1, 2, 3), insn("JA", 1), insn("TAX"), insn("TXA"), insn("RET_A")]
    assert without(insns, 2, 3) == [insn("JEQ_K", 1, 1, 2), insn("JA", 0), insn("TXA"), insn("RET_A")]
    assert without(insns, 1, 3) == [insn("JEQ_K", 1, 0, 1), insn("TXA"), insn("RET_A")]
    assert without(insns, 0, 1) == insns[1:]


@pytest.mark.kernel
def test_a_verdict_that_hangs_on_a_random_number_is_not_compared(rig: UnixRig) -> None:
    sampling = ClassicProgram((insn("LD_ABS_W", 0xFFFFF038), insn("AND_K", 1), insn("RET_A")))
    result = compare(verify(sampling), [b"abc"] * 50, rig)
    assert (result.pairs, result.unpredictable) == (0, 50)
    harmless = ClassicProgram((insn("LD_ABS_W", 0xFFFFF038), insn("AND_K", 0), insn("ADD_K", 2), insn("RET_A")))
    result = compare(verify(harmless), [b"abc"] * 50, rig)
    assert (result.pairs, result.accepted, result.differing) == (50, 50, ())


@pytest.mark.kernel
def test_the_kernels_refusal_carries_its_errno(rig: UnixRig) -> None:
    refused = ClassicProgram((insn("TAX"),))
    unchecked = Verified(Program(verify(ClassicProgram((insn("RET_A"),))).program.insns, classic=refused), trusted=True)
    with pytest.raises(ProgramRefused) as caught:
        Session(unchecked, rig).__enter__()
    assert caught.value.errno == 22


def test_generators_are_deterministic_and_cover_everything() -> None:
    first, second = ProgramMaker(3), ProgramMaker(3)
    programs = [first.valid() for _ in range(600)]
    assert programs == [second.valid() for _ in range(600)]
    codes = {i.code for program in programs for i in program.insns}
    from pktbpf.isa.classic import BY_CODE

    assert codes == set(BY_CODE)
    from pktbpf.abi.ancillary import BY_K

    assert {i.k for program in programs for i in program.insns if i.code == insn("LD_ABS_W").code} >= set(BY_K)
    assert [PacketMaker(4).any() for _ in range(9)] == [PacketMaker(4).any() for _ in range(9)]


def test_exact_lengths() -> None:
    maker = ProgramMaker(5)
    for count in (1, 2, 3, 4, 5, 17, 300):
        assert len(maker.valid(count)) == count


def test_packets_have_right_checksums() -> None:
    maker = PacketMaker(6, deliverable=True)
    for _ in range(100):
        kind, body = maker.ipv4()
        assert kind == 0x0800
        assert checksum(body[: 4 * (body[0] & 15)]) == 0


def test_instruction_values_are_plain() -> None:
    assert insn("RET_K", -1) == ClassicInsn(0x06, 0, 0, 0xFFFFFFFF)
