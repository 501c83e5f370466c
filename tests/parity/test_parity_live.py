"""Random programs over random and realistic packets: verdict and kept length against the live kernel, on every rig."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pktbpf.errors import KernelUnavailable, PktbpfError
from pktbpf.filter import verify
from pktbpf.kernel import syscall
from pktbpf.kernel.rigs import NAMES, Rig, open_rig
from pktbpf.parity.compare import Comparison, compare
from pktbpf.parity.packets import PacketMaker
from pktbpf.parity.programs import ProgramMaker
from pktbpf.parity.shrink import shrink
from pktbpf.program import ClassicProgram, Verified

pytestmark = pytest.mark.kernel

PER_PROGRAM = 25
# Pairs that each rig has to reach in the quick run; together more than 20,000.
QUICK = {"unix": (500, 12_500), "packet": (400, 8_000), "packet-dgram": (250, 5_000), "udp": (250, 2_500),
         "raw-ip": (250, 2_500)}  # fmt: skip
assert sum(least for _, least in QUICK.values()) > 20_000


@pytest.fixture(scope="module", params=NAMES)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    try:
        opened = open_rig(request.param)
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with opened:
        yield opened


def _packets(maker: PacketMaker, rig: Rig, number: int) -> list[bytes]:
    make = maker.bytes_of if rig.profile == "unix" and number % 2 else maker.any
    return [make() for _ in range(PER_PROGRAM)]


def _explain(program: ClassicProgram, packet: bytes, rig: Rig, engine: str, extended: bool) -> str:
    """The smallest pair that still differs, as text for the failure message."""

    def differs(program: ClassicProgram, packet: bytes) -> bool:
        try:
            return bool(compare(verify(program), [packet], rig, engine=engine, extended=extended).differing)
        except PktbpfError:
            return False

    program, packet = shrink(differs, program, packet)
    first = compare(verify(program), [packet], rig, engine=engine, extended=extended).first
    return f"{engine}, {rig.profile}: {program.insns} over {packet.hex()}: {first}"


def _run(rig: Rig, seed: int, programs: int, *, engine: str = "interpreter", extended: bool = False) -> Comparison:
    maker, packets = ProgramMaker(seed), PacketMaker(seed, deliverable=rig.profile in ("udp", "raw-ip"))
    total = Comparison()
    for number in range(programs):
        program, given = maker.valid(), _packets(packets, rig, number)
        verified = verify(program)
        if extended and verified.program.internal_calls:
            continue
        result = compare(verified, given, rig, engine=engine, extended=extended)
        if result.differing:
            pytest.fail(_explain(program, given[result.differing[0]], rig, engine, extended))
        total += result
    return total


def test_interpreter_agrees_with_the_kernel(rig: Rig) -> None:
    programs, least = QUICK[rig.profile]
    total = _run(rig, 1, programs)
    assert total.pairs >= least
    assert total.unpredictable == 0
    # Neither side may be right by dropping or taking everything.
    assert 0.15 < total.accepted / total.pairs < 0.85


def test_reference_agrees_with_the_kernel(rig: Rig) -> None:
    assert _run(rig, 2, 60, engine="reference").pairs > 500


def test_translation_loaded_through_bpf_gives_the_same_verdicts(rig: Rig) -> None:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    assert _run(rig, 3, 150, extended=True).pairs > 1000


def test_reference_runs_the_translation_as_the_kernel_does(rig: Rig) -> None:
    """Without its classic origin the reference engine runs the extended instructions."""
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    maker, packets = ProgramMaker(4), PacketMaker(4, deliverable=rig.profile in ("udp", "raw-ip"))
    total = Comparison()
    for number in range(80):
        program, given = verify(maker.valid()).program, _packets(packets, rig, number)
        if not program.internal_calls:
            alone = Verified(replace(program, classic=None, starts=()))
            result = compare(alone, given, rig, engine="reference")
            assert not result.differing, (program.classic, result.first)
            total += result
    assert total.pairs > 250


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 14))
def test_many_more_pairs(rig: Rig, seed: int) -> None:
    for part in range(3):
        _run(rig, seed * 100 + part, 1500)
    _run(rig, seed, 400, engine="reference")
    _run(rig, seed, 800, extended=True)
