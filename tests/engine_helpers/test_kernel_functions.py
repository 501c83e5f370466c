"""Random programs that call kernel functions: interpreter, reference engine and the live kernel give the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from helper_compare import difference, observe
from helper_lab import Ours, one_processor
from helper_live import Shelf
from kernel_generate import KernelGenerator
from workers import share

from pktbpf.abi import kfuncs
from pktbpf.engine import rare_kernel, reference_kernel
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
