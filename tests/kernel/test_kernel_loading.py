"""Programs with maps in the live kernel: created, filled, shared, closed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pktbpf.errors import KernelUnavailable
from pktbpf.isa.extended import Insn
from pktbpf.kernel import syscall
from pktbpf.kernel.loading import Loaded
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.objfile.values import MapDefinition
from pktbpf.program import MapSpec, Program

pytestmark = pytest.mark.kernel

COUNTER = MapSpec("ARRAY", 4, 8, 1, name="counter")


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    made = Loaded()
    yield made
    made.close()


def counting(step: int, spec: MapSpec = COUNTER) -> Program:
    """Adds `step` to the first value of the map and accepts everything."""
    insns = (
        Insn(0x62, 10, 0, -4, 0),  # *(u32 *)(r10 - 4) = 0
        Insn(0xBF, 2, 10, 0, 0),
        Insn(0x07, 2, 0, 0, -4),
        Insn(0x18, 1, 1, 0, 0),
        Insn(0x00, 0, 0, 0, 0),
        Insn(0x85, 0, 0, 0, 1),
        Insn(0x15, 0, 0, 2, 0),
        Insn(0xB7, 1, 0, 0, step),
        Insn(0xDB, 0, 1, 0, 0),  # lock *(u64 *)(r0 + 0) += r1
        Insn(0xB7, 0, 0, 0, -1),
        Insn(0x95, 0, 0, 0, 0),
    )
    return Program(insns, maps={3: spec})


def test_programs_share_a_map_by_name(loaded: Loaded) -> None:
    with UnixRig() as rig:
        for step, runs in ((1, 3), (10, 2)):
            assert rig.attach_extended(loaded.program(counting(step))) == 0
            assert rig.lengths([b"ab"] * runs) == [2] * runs
    assert struct.unpack("<Q", loaded.read("counter", bytes(4), 8)) == (23,)


def test_a_data_section_arrives_with_its_bytes(loaded: Loaded) -> None:
    definition = MapDefinition("ARRAY", 4, 8, 1, name="numbers", initial=struct.pack("<Q", 41))
    insns = (
        Insn(0x18, 1, 2, 0, 0),
        Insn(0x00, 0, 0, 0, 0),
        Insn(0x79, 0, 1, 0, 0),
        Insn(0x07, 0, 0, 0, 1),
        Insn(0x95, 0, 0, 0, 0),
    )
    fd = loaded.program(Program(insns, maps={0: definition}))
    assert syscall.run_once(fd, bytes(60))[0] == 42


@pytest.mark.usefixtures("loaded")
def test_a_program_is_loaded_once_and_everything_is_closed() -> None:
    made, program = Loaded(), counting(1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert made.program(program) == made.program(program)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    made.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_refused_map_keeps_its_errno(loaded: Loaded) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        loaded.map(MapSpec("ARRAY", 8, 8, 1, name="wrong"))
