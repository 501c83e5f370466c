"""Which helpers run and which are refused: complete, by name, at load."""

from __future__ import annotations

import pytest

from pktbpf import engine as engines
from pktbpf.abi.helpers import BY_NAME, NUMBERS, ROWS
from pktbpf.asm.builder import R0, build, call, call_local, exit_, label, mov64_imm
from pktbpf.engine import supported
from pktbpf.engine.base import Env
from pktbpf.engine.interpreter import RUNNABLE
from pktbpf.engine.reference_helpers import BODIES
from pktbpf.errors import ProgramRefused
from pktbpf.program import Verified


def test_every_helper_of_socket_filters_runs_or_is_refused_with_a_reason() -> None:
    for row in ROWS:
        assert (row.id in RUNNABLE) != (row.name in supported.REFUSED), row.name
    assert set(supported.REFUSED) <= set(BY_NAME)


def test_the_table_of_the_docs_has_a_line_for_each() -> None:
    lines = supported.table()
    assert [line.number for line in lines] == sorted(row.id for row in ROWS)
    assert {line.name for line in lines if not line.reason} == {row.name for row in ROWS if row.id in RUNNABLE}


def test_the_reference_engine_has_a_body_for_each_that_runs() -> None:
    assert {row.name for row in ROWS if row.id in RUNNABLE} == set(BODIES) | {"tail_call"}


@pytest.mark.parametrize("name", ["get_current_task", "probe_read_kernel", "skc_to_tcp_sock", "snprintf_btf"])
def test_a_helper_without_meaning_is_refused_at_load_by_name(name: str) -> None:
    program = build([call(name), mov64_imm(R0, 1), exit_()])
    with pytest.raises(ProgramRefused) as refused:
        engines.get("interpreter").prepare(Verified(program), Env())
    assert refused.value.errno == 22
    assert refused.value.insn == 0
    assert f"bpf_{name}#{NUMBERS[name]} {supported.REFUSED[name]}" in str(refused.value)


def test_a_helper_of_other_program_types_is_refused_too() -> None:
    program = build([call_local("f"), exit_(), label("f"), call("skb_store_bytes"), mov64_imm(R0, 1), exit_()])
    with pytest.raises(ProgramRefused, match="instruction 2: helper bpf_skb_store_bytes#9 cannot be called"):
        engines.get("interpreter").prepare(Verified(program), Env())
