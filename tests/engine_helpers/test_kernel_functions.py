"""Random programs that call kernel functions: interpreter, reference engine and the live kernel give the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from helper_compare import difference, observe
from helper_lab import Ours, Spec, assemble, one_processor
from helper_live import Shelf
from kernel_generate import KernelGenerator
from workers import share

from pktbpf.abi import kfuncs
from pktbpf.asm.builder import R1, R2, call_kfunc, exit_, ld_map_value
from pktbpf.engine import rare_kernel, reference_kernel
from pktbpf.engine.base import Fault
from pktbpf.engine.supported import REFUSED_KFUNCS
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.kernel.loading import kfunc_number

COUNT, LONG = 3000, 20_000
SCRIPT = Path(__file__).with_name("helper_compare.py")


@pytest.fixture(scope="module")
def _kernel() -> None:
    try:
        syscall.available()
        kfunc_number("bpf_iter_num_new")
    except (KernelUnavailable, syscall.LoadRefused) as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    shelf = Shelf()
    with one_processor() as cpu:
        difference(0, "interpreter", cpu, shelf, KernelGenerator)  # compiles, once for all processes
    shelf.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_the_interpreter_agrees_with_the_kernel() -> None:
    assert share(SCRIPT, range(COUNT), "interpreter", "kernel") > 0.9 * COUNT


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.usefixtures("_kernel")
def test_many_more_agree() -> None:
    assert share(SCRIPT, range(100_000, 100_000 + LONG), "interpreter", "kernel") > 0.9 * LONG


def test_the_reference_engine_agrees() -> None:
    for seed in range(200):
        source = KernelGenerator(seed)
        programs, specs = source.case()
        packets = source.packets()
        ours = observe(Ours(programs, specs), packets)
        assert observe(Ours(programs, specs, engine="reference"), packets) == ours, f"seed {seed}"


def test_every_row_runs_or_is_refused_with_a_reason() -> None:
    runs = {kfuncs.NAMES[number] for number in rare_kernel.NUMBERS}
    assert set(reference_kernel.BODIES) == runs
    assert runs | set(REFUSED_KFUNCS) == set(kfuncs.BY_NAME)
    assert not runs & set(REFUSED_KFUNCS)


def test_every_function_that_runs_is_generated() -> None:
    programs = [program for seed in range(1500) for program in KernelGenerator(seed).case()[0].values()]
    called = {name for program in programs for name in program.kfuncs.values()}
    assert called == {kfuncs.NAMES[number] for number in rare_kernel.NUMBERS}


@pytest.mark.parametrize("engine", ["interpreter", "reference"])
@pytest.mark.parametrize(
    ("name", "text", "other", "answer"),
    [
        ("strspn", b"aabbz", b"ba", 4), ("strcspn", b"xyz,1", b",;", 3),
        ("strspn", b"\xff\x80\x40\x01", b"\x01\x40\x80\xff", 4),
        ("strspn", b"ab", b"", 0), ("strcspn", b"ab", b"", 2), ("strstr", b"aaaab", b"aab", 2),
    ],
)  # fmt: skip
def test_strings(engine: str, name: str, text: bytes, other: bytes, answer: int) -> None:
    specs = {"two": Spec("ARRAY", 4, 32, 1, entries=[(bytes(4), text.ljust(16, b"\0") + other.ljust(16, b"\0"))])}
    steps = [ld_map_value(R1, "two"), ld_map_value(R2, "two", 16), call_kfunc(f"bpf_{name}"), exit_()]
    assert Ours({"main": assemble(steps, specs)}, specs, engine=engine).once(b"x" * 30) == (answer, 0)


def test_a_search_through_the_square_of_the_longest_strings_ends() -> None:
    size = 1 << 16
    value = b"a" * size + b"a" * (size // 2) + b"b"
    specs = {"two": Spec("ARRAY", 4, 2 * size, 1, entries=[(bytes(4), value.ljust(2 * size, b"\0"))])}
    steps = [ld_map_value(R1, "two"), ld_map_value(R2, "two", size), call_kfunc("bpf_strstr"), exit_()]
    side = Ours({"main": assemble(steps, specs)}, specs)
    assert side.once(b"x" * 30)[1] == int(Fault.BUDGET)
