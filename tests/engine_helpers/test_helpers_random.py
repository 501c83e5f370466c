"""Random programs with maps, helpers, loops, functions and tail calls: ours, the plain engine, the live kernel agree.

helper_compare says what is compared. PKTBPF_HELPER_PROGRAMS sets how many the long run tries.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helper_compare import difference, observe
from helper_generate import Generator
from helper_lab import Ours, one_processor
from helper_live import Shelf
from helper_pieces import SPECS
from record_cases import CASES, summary
from workers import share

from pktbpf.engine.base import Env
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

QUICK, PLAIN, ADMITTED, LONG = 21_000, 400, 3000, int(os.environ.get("PKTBPF_HELPER_PROGRAMS", "40000"))
SCRIPT = Path(__file__).with_name("helper_compare.py")


@pytest.fixture(scope="module")
def _kernel() -> None:
    try:
        syscall.available()
        shelf = Shelf()
        shelf.map("perf", SPECS["perf"], SPECS)
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    with one_processor() as cpu:
        difference(0, "interpreter", cpu, shelf)  # compiles, once for all processes
    shelf.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_the_interpreter_agrees_with_the_kernel() -> None:
    assert share(SCRIPT, range(QUICK), "interpreter") > 0.95 * QUICK


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_the_reference_engine_agrees_with_the_kernel() -> None:
    assert share(SCRIPT, range(QUICK, QUICK + PLAIN), "reference") > 0.9 * PLAIN


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("more", [(), ("kernel",)], ids=["helpers", "functions"])
def test_the_verifiers_agree(more: tuple[str, ...]) -> None:
    assert share(SCRIPT, range(ADMITTED), "verifier", *more) > 0.95 * ADMITTED


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.usefixtures("_kernel")
def test_many_more_agree() -> None:
    assert share(SCRIPT, range(100_000, 100_000 + LONG), "interpreter") > 0.95 * LONG


def test_interpreter_and_reference_agree_without_a_kernel() -> None:
    for seed in range(5000, 5150):
        source = Generator(seed)
        programs, specs = source.case()
        packets = source.packets()
        ours = observe(Ours(programs, specs), packets)
        assert observe(Ours(programs, specs, engine="reference"), packets) == ours, f"seed {seed}"


def test_recorded_answers_of_the_kernel() -> None:
    """The same without a kernel: tests/cases/helpers/random.json, written by record_cases.py."""
    recorded = json.loads(CASES.read_text())
    facts = recorded["machine"]
    env = Env(cpu=facts["cpu"], budget=1 << 27, socket_uid=0, netns_cookie=facts["netns_cookie"])
    assert len(recorded["programs"]) > 300
    for seed, want in recorded["programs"].items():
        source = Generator(int(seed))
        programs, specs = source.case()
        ours = Ours(programs, specs, cpu=facts["cpu"], cpus=facts["cpus"], env=env)
        assert summary(observe(ours, source.packets())) == want, f"seed {seed}"
