"""Coverage counters of the compiled loop equal the plain machine's steps on random programs with maps and helpers.

Helpers, callbacks, functions and tail calls are among them; timers are not, whose callbacks run between packets.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from helper_generate import Generator
from helper_lab import Ours

from pktbpf.engine import groups
from pktbpf.engine.reference_extended import Exited
from pktbpf.engine.reference_packet import Faulted, Packet
from pktbpf.explain.coverage import CountingEngine

SEEDS = range(9000, 9060)
TIMERS = {169, 170, 171, 172}


def plain_counts(ours: Ours, packets: list[bytes]) -> dict[bytes, Counter[int]]:
    """Executions by slot, for each program that ran, by its bytes."""
    found: dict[bytes, Counter[int]] = {}
    runner: Any = ours.filter.runner
    skbs = ours.filter._skbs(list(packets), None, 0, {})
    for row in range(len(skbs)):
        machine = runner.machine(Packet.of(skbs, row))
        steps = machine.steps(runner.program.insns)
        try:
            while True:
                found.setdefault(machine.program.to_bytes(), Counter())[machine.pc] += 1
                next(steps)
        except (Exited, Faulted):
            pass
    return found


def test_counts_equal_the_plain_machines_steps() -> None:
    compared = 0
    for seed in SEEDS:
        source = Generator(seed)
        programs, specs = source.case()
        if any(insn.code == 0x85 and insn.imm in TIMERS for program in programs.values() for insn in program.insns):
            continue
        packets = list(source.packets())
        engine = CountingEngine("random")
        counted = Ours(programs, specs, engine=engine)  # type: ignore[arg-type]
        # One variant of the loop for all programs: each set of groups is compiled for itself.
        counted.filter.runner.inner.groups = groups.Groups(False, True, True, True, True, True)  # type: ignore[attr-defined]
        counted.filter.run_many(packets)
        plain = plain_counts(Ours(programs, specs, engine="reference"), packets)
        for found in engine.coverage().programs:
            steps = plain.get(found.program.to_bytes(), Counter())
            assert found.counts[:, 0].tolist() == [steps[slot] for slot in range(len(found.program))], f"seed {seed}"
            compared += sum(steps.values())
    assert compared > 1000
