"""Random programs with maps, helpers, loops, functions and tail calls: ours, the plain engine, the live kernel agree.

Compared are kept lengths through SO_ATTACH_BPF, return values of BPF_PROG_TEST_RUN, and what all maps hold at the end.
The live kernel's BPF_PROG_LOAD decides which programs count. PKTBPF_HELPER_PROGRAMS sets how many the long run tries.
"""

from __future__ import annotations

import json
import os

import pytest
from helper_generate import Generator
from helper_lab import Live, Ours, one_processor, possible_cpus
from record_cases import CASES, observe, summary

from pktbpf.engine.base import Env
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

QUICK, PLAIN, LONG = 1200, 150, int(os.environ.get("PKTBPF_HELPER_PROGRAMS", "20000"))


@pytest.fixture(scope="module")
def _kernel() -> None:
    try:
        syscall.available()
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")


def against_the_kernel(seeds: range, engine: str, cpu: int) -> int:
    """How many programs were compared; fails with the seed of the first difference."""
    compared = 0
    for seed in seeds:
        source = Generator(seed)
        programs, specs = source.case()
        try:
            live = Live(programs, specs)
        except syscall.LoadRefused:
            continue
        packets = source.packets()
        want = observe(live, packets)
        assert observe(Ours(programs, specs, cpu, engine, possible_cpus()), packets) == want, f"seed {seed}"
        compared += 1
    return compared


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_the_interpreter_agrees_with_the_kernel() -> None:
    with one_processor() as cpu:
        assert against_the_kernel(range(QUICK), "interpreter", cpu) > 0.9 * QUICK


@pytest.mark.kernel
@pytest.mark.usefixtures("_kernel")
def test_the_reference_engine_agrees_with_the_kernel() -> None:
    with one_processor() as cpu:
        assert against_the_kernel(range(QUICK, QUICK + PLAIN), "reference", cpu) > 0.9 * PLAIN


@pytest.mark.kernel
@pytest.mark.long
@pytest.mark.usefixtures("_kernel")
def test_many_more_agree() -> None:
    with one_processor() as cpu:
        assert against_the_kernel(range(100_000, 100_000 + LONG), "interpreter", cpu) > 0.9 * LONG


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
