"""The random programs leave nothing out: every helper that runs here, every kind of map, every field, every width.

Three helpers cannot be in a program that the kernel loads as a socket filter; that is asked as well.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from helper_generate import READABLE, Generator
from helper_lab import Spec, assemble
from helper_live import Live

from pktbpf.abi.helpers import BY_ID, ROWS
from pktbpf.asm.builder import (
    ADD,
    DW,
    JEQ,
    R0,
    R1,
    R2,
    R6,
    R10,
    alu64_imm,
    call,
    exit_,
    jmp_imm,
    label,
    ld_map,
    mov64_imm,
    mov64_reg,
    st_mem,
)  # fmt: skip
from pktbpf.engine.interpreter import RUNNABLE
from pktbpf.errors import KernelUnavailable
from pktbpf.isa.extended import Insn, Kind
from pktbpf.kernel import syscall
from pktbpf.maps.families import FAMILIES
from pktbpf.program import Program

SEEDS = range(6000)
UNLOADABLE = {
    "spin_lock": "socket filter progs cannot use bpf_spin_lock yet",
    "spin_unlock": "socket filter progs cannot use bpf_spin_lock yet",
    "kptr_xchg": "BPF_EXIT instruction in main prog would lead to reference leak",  # and nothing could give it back
}
# Take variables of the kernel, whose addresses few kernels list: tests/engine/test_kernel_variables.
OF_VARIABLES = {"per_cpu_ptr", "this_cpu_ptr"}


@functools.cache
def programs() -> tuple[tuple[str, Program, frozenset[str]], ...]:
    """(name, program, kinds of its maps) of all seeds."""
    cases = (Generator(seed).case() for seed in SEEDS)
    return tuple(
        (name, program, frozenset(spec.kind for spec in specs.values()))
        for found, specs in cases for name, program in found.items()
    )  # fmt: skip


def insns() -> Iterator[Insn]:
    return itertools.chain.from_iterable(program.insns for _, program, _ in programs())


def test_every_helper_is_called() -> None:
    called = {BY_ID[insn.imm].name for insn in insns() if insn.code == 0x85 and insn.src == 0}
    assert called == {row.name for row in ROWS if row.id in RUNNABLE} - set(UNLOADABLE) - OF_VARIABLES


def test_every_kind_of_map_is_there() -> None:
    assert {kind for _, _, kinds in programs() for kind in kinds} == set(FAMILIES)


def test_every_readable_field_is_read_in_every_width() -> None:
    read = {(insn.off, insn.code) for insn in insns() if insn.src == R6 and insn.row and insn.row.kind is Kind.LOAD}
    for field in READABLE:
        for code, width in ((0x61, 4), (0x69, 2), (0x71, 1)):
            for at in range(field.offset, field.offset + 4, width):
                assert (at, code) in read, f"{field.name}, {width} bytes at {at}"
    assert (168, 0x79) in read


def test_the_control_block_is_written_and_read_on_both_sides_of_a_tail_call() -> None:
    for which in (("main",), ("other0", "other1")):
        found = [insn for name, program, _ in programs() if name in which for insn in program.insns]
        written = {insn.code for insn in found if insn.dst == R6 and 48 <= insn.off < 68}
        read = {insn.code for insn in found if insn.src == R6 and 48 <= insn.off < 68}
        assert written >= {0x62, 0x6A, 0x72, 0x7A, 0x63, 0x6B, 0x73, 0x7B}
        assert read >= {0x61, 0x69, 0x71, 0x79}


def test_all_ways_of_leaving_the_straight_line_are_taken() -> None:
    local = {insn.src for insn in insns() if insn.code == 0x85}
    assert {0, 1} <= local
    assert any(insn.code == 0x18 and insn.src == 4 for insn in insns())  # callbacks
    atomics = {insn.row.name for insn in insns() if insn.row and insn.row.kind is Kind.ATOMIC}
    assert len(atomics) == 20
    loads = [
        program for _, program, _ in programs()
        if any(insn.code & 0xE7 == 0x20 and at > _main_end(program) for at, insn in enumerate(program.insns))
    ]  # fmt: skip
    assert loads  # packet loads inside functions


def _main_end(program: Program) -> int:
    return next(at for at, insn in enumerate(program.insns) if insn.code == 0x95)


def _lookup(kind: str) -> tuple[dict[str, Spec], list[Any]]:
    """A look at the special field of a value, whose address is in r1."""
    specs = {"m": Spec("HASH", 4, 16, 4, special=kind)}
    steps = [st_mem(DW, R10, -8, 0), ld_map(R1, "m"), mov64_reg(R2, R10), alu64_imm(ADD, R2, -8)]
    steps += [call("map_lookup_elem"), jmp_imm(JEQ, R0, 0, "out"), mov64_reg(R6, R0)]
    return specs, [*steps, mov64_reg(R1, R0), alu64_imm(ADD, R1, 8)]


@pytest.mark.kernel
@pytest.mark.parametrize("name", sorted(UNLOADABLE))
def test_the_kernel_loads_no_program_with_the_others(name: str) -> None:
    try:
        syscall.available()
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    specs, steps = _lookup("kptr" if name == "kptr_xchg" else "lock")
    if name == "kptr_xchg":
        steps += [mov64_imm(R2, 0), call(name), jmp_imm(JEQ, R0, 0, "out"), mov64_imm(R0, 0)]
    else:
        steps += [call("spin_lock"), mov64_reg(R1, R6), alu64_imm(ADD, R1, 8), call("spin_unlock")]
    steps += [label("out"), mov64_imm(R0, 0), exit_()]
    with pytest.raises(syscall.LoadRefused, match=UNLOADABLE[name]):
        Live({"main": assemble(steps, specs)}, specs)
