"""Coverage counters of the compiled loop equal the plain machine's steps, on every conformance case that ends."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conformance_cases import Case, cases

from pktbpf.engine import conformance, image, interpreter
from pktbpf.engine.base import Env
from pktbpf.isa.extended import Insn, Row
from pktbpf.program import Verified


class CountingEngine:
    """The interpreter with its counters on; keeps the last runner."""

    name = "interpreter"
    runner: Any = None

    def prepare(self, verified: Verified, env: Env) -> Any:
        self.runner = interpreter.ENGINE.prepare(verified, env, coverage=True)
        return self.runner


ENDING = [case for case in cases() if case.engines and case.result is not None]


@pytest.mark.parametrize("case", ENDING, ids=lambda case: case.title)
def test_counts_equal_the_plain_machines_steps(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, steps = CountingEngine(), Counter[int]()

    class Stepped(conformance._MemoryMachine):
        def _step(self, insns: tuple[Insn, ...], insn: Insn, row: Row) -> None:
            steps[self.pc - 1] += 1
            super()._step(insns, insn, row)

    monkeypatch.setattr(conformance, "get", lambda name: counting)
    monkeypatch.setattr(conformance, "_MemoryMachine", Stepped)
    assert conformance.run_memory(case.program, case.memory) == case.result
    assert conformance.run_memory(case.program, case.memory, "reference") == case.result
    counts = counting.runner.counts[: -len(image.TAIL), 0]  # what follows the program is no instruction of it
    counted = {slot: int(n) for slot, n in enumerate(counts) if n}
    assert counted == dict(steps)
