"""The conformance cases on both engines; every operation of the instruction table has one."""

from __future__ import annotations

import pytest
from conformance_cases import Case, cases

from pktbpf import engine as engines
from pktbpf.engine.conformance import ConformanceError, run_memory
from pktbpf.errors import MapError, UsageError
from pktbpf.isa.extended import ROWS, walk

CASES = cases()
# References to maps cannot be written without a map; tests/maps runs programs that have some.
WITH_MAPS = {"LD_MAP_FD", "LD_MAP_VALUE", "LD_MAP_IDX", "LD_MAP_IDX_VALUE"}


@pytest.mark.parametrize("engine", engines.NAMES)
@pytest.mark.parametrize("case", [case for case in CASES if case.engines], ids=lambda case: case.title)
def test_case(case: Case, engine: str) -> None:
    if case.result is None:
        with pytest.raises((ConformanceError, MapError)):
            run_memory(case.program, case.memory, engine, budget=200_000)
    else:
        assert run_memory(case.program, case.memory, engine) == case.result


def test_every_operation_has_a_case() -> None:
    used = {row.name for case in CASES for _, insn, _ in walk(case.program.insns) if (row := insn.row) is not None}
    assert {row.name for row in ROWS} - used == WITH_MAPS


def test_titles_are_unique() -> None:
    titles = [case.title for case in CASES]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("engine", engines.NAMES)
def test_the_memory_given_is_not_changed(engine: str) -> None:
    case = next(case for case in CASES if case.title == "memory: store of a register")
    memory = bytes(8)
    assert run_memory(case.program, memory, engine) == run_memory(case.program, memory, engine)
    assert memory == bytes(8)


def test_unknown_engine() -> None:
    with pytest.raises(UsageError, match="unknown engine 'jit'"):
        run_memory(CASES[0].program, b"", "jit")
