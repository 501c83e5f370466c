"""The loop, the image and the tables agree: every operation has a number, a branch and a row; no literal slips in."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import pktbpf
from pktbpf.engine import NAMES, image, loop
from pktbpf.engine import get as get_engine
from pktbpf.isa.extended import ROWS, Row

SOURCE = Path(inspect.getfile(loop)).read_text()
LOOP = next(n for n in ast.parse(SOURCE).body if isinstance(n, ast.FunctionDef) and n.name == "run_batch")
# Names that hold uint64 in the loop; a bare literal beside one makes numba compute in int64 without a word.
UNSIGNED = {
    "word", "dst", "src", "imm", "a", "b", "x", "y", "value", "where", "width", "at", "begin", "have", "address",
    "place", "which",
}  # fmt: skip


def test_operation_numbers_fit_beside_the_immediate_bit() -> None:
    assert len(image.OPERATIONS) <= image.IMMEDIATE
    assert len(set(image.OPERATIONS)) == len(image.OPERATIONS)


@pytest.mark.parametrize("row", [r for r in ROWS if r.name != "CALL_KFUNC"], ids=lambda row: row.name)
def test_every_row_has_an_operation(row: Row) -> None:
    assert 0 <= image.operation_of(row) & 0x7F < len(image.OPERATIONS)


@pytest.mark.parametrize("name", image.OPERATIONS)
def test_every_operation_has_a_branch(name: str) -> None:
    compared = {
        side.id
        for node in ast.walk(LOOP)
        if isinstance(node, ast.Compare)
        for side in node.comparators
        if isinstance(side, ast.Name)
    }
    last_ones = {"JSLE64", "JSLE32"}  # what remains when every other test has failed
    assert name in compared | last_ones
    if name not in last_ones:
        assert getattr(loop, name) == image.OP[name]


def test_no_bare_literal_meets_an_unsigned_value() -> None:
    found = []
    for node in ast.walk(LOOP):
        if isinstance(node, ast.BinOp):
            pairs = [(node.left, node.right)]
        elif isinstance(node, ast.Compare):
            pairs = [(node.left, right) for right in node.comparators]
        else:
            continue
        for left, right in pairs:
            for one, other in ((left, right), (right, left)):
                literal = isinstance(other, ast.Constant) and isinstance(other.value, int)
                if literal and isinstance(one, ast.Name) and one.id in UNSIGNED:
                    found.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not found


def test_names_and_modules_of_engines() -> None:
    for name in NAMES:
        assert get_engine(name).name == name
    with pytest.raises(pktbpf.UsageError, match="interpreter, reference"):
        get_engine("turbo")
