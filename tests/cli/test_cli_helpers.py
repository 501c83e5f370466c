"""`pktbpf helpers`: every row is there, names and numbers choose, and what cannot be called is said."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from pktbpf.abi import kfuncs
from pktbpf.abi.helpers import BY_NAME, ROWS
from pktbpf.cli import cli
from pktbpf.engine.interpreter import RUNNABLE


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["helpers", *arguments])


def test_all_helpers_with_what_becomes_of_them() -> None:
    rows = json.loads(run("--format", "json").stdout)
    assert [row["number"] for row in rows] == [row.id for row in ROWS]
    assert {row["number"] for row in rows if row["runs"]} == RUNNABLE & {row.id for row in ROWS}
    assert all(bool(row["reason"]) != row["runs"] for row in rows)
    assert {row["name"] for row in rows if row["gpl_only"]} == {f"bpf_{row.name}" for row in ROWS if row.gpl_only}
    assert len(run().stdout.splitlines()) == len(ROWS)


def test_a_line_of_text() -> None:
    lines = run("map_lookup_elem", "bpf_trace_printk", "35").stdout.splitlines()
    assert lines == [
        "  1  bpf_map_lookup_elem   anyone                5.10       runs",
        "  6  bpf_trace_printk      CAP_BPF, CAP_PERFMON  5.10  GPL  runs",
        " 35  bpf_get_current_task  CAP_BPF, CAP_PERFMON  5.10  GPL  refused: asks about the task that happens to run, "
        "which a packet out of a capture has none of",
    ]


def test_kernel_functions() -> None:
    rows = json.loads(run("--kfuncs", "--format", "json").stdout)
    assert [row["name"] for row in rows] == [row.name for row in kfuncs.ROWS]
    assert run("--kfuncs", "bpf_iter_num_new").stdout == "bpf_iter_num_new  CAP_BPF  6.4        runs\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["skb_store_bytes"], "skb_store_bytes: a socket filter cannot call this helper"),
        (["9"], "9: a socket filter cannot call this helper"),
        (["nothing"], "nothing: no such helper for socket filters; see `pktbpf helpers --kfuncs`, too"),
        (["--kfuncs", "trace_printk"], "trace_printk: no such kernel function for socket filters"),
    ],
)
def test_what_is_not_there(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert message in done.stderr


def test_names_are_those_of_the_table() -> None:
    for name in list(BY_NAME)[::7]:
        assert f"bpf_{name} " in run(name).stdout
