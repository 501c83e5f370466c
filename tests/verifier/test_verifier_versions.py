"""What changed between kernel versions: a case for every row of the table, and how versions come between them.

The verdicts of 5.10, 6.1 and 6.12 in the case files are answers of kernels 5.10.251, 6.1.192 and 6.12.118; those of the
newest are put to the live kernel here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import os
from pathlib import Path

import pytest
from verifier_cases import VERSIONS as FOLDER
from verifier_cases import Case, ours, read
from verifier_oracle import Oracle

from pktbpf.abi import helpers, kfuncs, map_kinds
from pktbpf.errors import ProgramRefused, UsageError
from pktbpf.isa.extended import Insn
from pktbpf.program import MapSpec, Program
from pktbpf.verifier import check, verify
from pktbpf.verifier.domain import domain
from pktbpf.verifier.profile import NEWEST, VERSIONS, Profile, Rules, profile
from pktbpf.verifier.rules import ROWS, Rule, holds, version_of
from pktbpf.verifier.scalar import NEWEST as WHOLE
from pktbpf.verifier.scalar import Reach
from pktbpf.verifier.types import FunctionType

README = Path(__file__).parent.parent.parent / "README.md"
# Rows that no program of raw instructions shows: they have tests of their own below.
OTHERS = {"failing_packet_loads", "callback_rounds", "sha256_tags", "returns_from_tail_calls"}
ATTRIBUTES = {field.name for kind in (Rules, Reach) for field in dataclasses.fields(kind)}
FILED = [row for row in ROWS if row.name in ATTRIBUTES - OTHERS]
PAIRS = {path.stem: read(path) for path in sorted(FOLDER.glob("*.txt"))}


def verdict(case: Case) -> tuple[int, str]:
    found = ours(case.insns, case.privilege, kernel=case.kernel)
    assert case.verdict.insn is None or found.insn == case.verdict.insn
    return found.errno, found.line


def switched(version: str, name: str) -> Profile:
    """A version's profile with one rule the other way round."""
    has = {row.name: holds(row, version) for row in ROWS}
    has[name] = not has[name]
    changes = {name: has[name]} if name in {field.name for field in dataclasses.fields(Rules)} else {}
    reach = Reach(**{field.name: has[field.name] for field in dataclasses.fields(Reach)})
    return dataclasses.replace(profile(version), domain=domain(reach), **changes)


def test_every_row_has_a_case_and_every_case_a_row() -> None:
    assert {row.name for row in FILED} == set(PAIRS)


@pytest.mark.parametrize("row", FILED, ids=lambda row: row.name)
def test_verdicts_before_and_after(row: Rule) -> None:
    before, after = PAIRS[row.name]
    assert not holds(row, before.kernel)
    assert holds(row, after.kernel)
    assert verdict(before) == (before.verdict.errno, before.verdict.line)
    assert verdict(after) == (after.verdict.errno, after.verdict.line)
    assert verdict(before) != verdict(after)


@pytest.mark.parametrize("row", FILED, ids=lambda row: row.name)
def test_the_row_alone_makes_a_difference(row: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    different = False
    for case in PAIRS[row.name]:
        with monkeypatch.context() as patch:
            other = switched(case.kernel, row.name)
            patch.setattr(check, "profile", lambda version, other=other: other)
            found = ours(case.insns, case.privilege, kernel=case.kernel)
        different |= (found.errno, found.line) != (case.verdict.errno, case.verdict.line)
    assert different


@pytest.mark.kernel
def test_the_live_kernel_agrees_with_the_newest() -> None:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    oracle = Oracle()
    if oracle.live_version() != version_of(NEWEST):
        pytest.skip(f"the newest rules are those of Linux {NEWEST}")
    for pair in PAIRS.values():
        for case in pair:
            if case.kernel == NEWEST:
                found = oracle.ask(case.insns, case.privilege)
                assert (found.errno, found.line) == (case.verdict.errno, case.verdict.line), case.name


def test_the_newest_profile_is_the_default_arithmetic() -> None:
    newest = profile(NEWEST)
    assert newest.domain is domain(WHOLE)
    assert newest.approximate == ()
    for row in ROWS:
        assert holds(row, NEWEST) == (version_of(row.since) <= version_of(NEWEST) or NEWEST in row.kept), row.name


def test_rows_are_well_formed() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert version_of(row.since) > version_of(VERSIONS[0])
        assert all(version_of(kept) < version_of(row.since) for kept in row.kept)
        assert row.notice
        assert row.source
    assert {row.name for row in ROWS} >= ATTRIBUTES
    assert all(row.approximate for row in ROWS if row.name not in ATTRIBUTES)


def test_helpers_kinds_and_functions_only_become_more() -> None:
    versions = [f"5.{n}" for n in range(10, 20)] + [f"6.{n}" for n in range(19)]
    for older, newer in itertools.pairwise(versions):
        a, b = profile(older), profile(newer)
        assert a.helpers <= b.helpers
        assert a.map_kinds <= b.map_kinds
        assert a.kfuncs <= b.kfuncs
        assert a.last_helper <= b.last_helper
        assert all(number < a.last_helper for number in a.helpers)
    newest = profile(NEWEST)
    assert newest.helpers == {row.id for row in helpers.ROWS}
    assert newest.map_kinds == {row.name for row in map_kinds.ROWS}
    assert newest.kfuncs == {row.name for row in kfuncs.ROWS}


def test_the_readme_has_the_table() -> None:
    text = README.read_text()
    spec = importlib.util.spec_from_file_location("versions", README.parent / "bench" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert f"<!-- versions: begin -->\n{module.section()}<!-- versions: end -->" in text, "run bench/versions.py"


def test_versions_in_between_and_outside() -> None:
    assert profile("6.8").ranges
    assert not profile("6.8").unbounded_spills
    assert profile("6.9").unbounded_spills
    assert profile("6.1").long_goto
    assert not profile("6.2").long_goto
    for text in ("5.9", "4.19"):
        with pytest.raises(UsageError, match=r"older than 5\.10"):
            profile(text)
    assert profile("6.1.5") == profile("6.1.0-28-amd64") == profile("6.1")
    for text in ("6", "6.x", "six", ""):
        with pytest.raises(UsageError, match="not a version"):
            profile(text)


class Types:
    """Functions of a program by where they start."""

    def __init__(self, **starts: int):
        self.functions = {start: FunctionType(name) for name, start in starts.items()}


def said(program: Program, kernel: str) -> str:
    """The reason of the refusal, empty if it is accepted."""
    try:
        verify(program, kernel=kernel)
    except ProgramRefused as refused:
        return refused.reason
    return ""


def test_a_failing_packet_load_returns_zero_from_its_function() -> None:
    # The callee loads a byte and gives back 1; where it gave 0 the caller reads a register that is not set.
    insns = (
        Insn(0xBF, 6, 1), Insn(0x85, 0, 1, 0, 5), Insn(0x15, 0, 0, 2, 0), Insn(0xB7), Insn(0x95), Insn(0xBF, 0, 9),
        Insn(0x95), Insn(0xBF, 6, 1), Insn(0x30), Insn(0xB7, 0, 0, 0, 1), Insn(0x95),
    )  # fmt: skip
    program = Program(insns, btf=Types(main=0, load=7))
    assert said(program, "5.10") == ""
    assert said(program, "6.1") == "R9 !read_ok"


def test_a_tail_call_may_end_its_function() -> None:
    # The callee gives back 1 after a tail call that failed; a program that it led to could give back anything.
    insns = (
        Insn(0x85, 0, 1, 0, 5), Insn(0x15, 0, 0, 2, 1), Insn(0xBF, 0, 9), Insn(0x95), Insn(0xB7), Insn(0x95),
        Insn(0x18, 2, 1), Insn(0), Insn(0xB7, 3), Insn(0x85, 0, 0, 0, 12), Insn(0xB7, 0, 0, 0, 1), Insn(0x95),
    )  # fmt: skip
    progs = MapSpec("PROG_ARRAY", 4, 4, 4, name="progs")
    program = Program(insns, btf=Types(main=0, tail=6), maps={6: progs})
    assert said(program, "6.12") == ""
    assert said(program, "6.18") == "R9 !read_ok"


def test_callbacks_were_walked_once() -> None:
    # bpf_loop calls a function that adds 40 to a number on the stack, which then points into a value of 64 bytes.
    main = (
        Insn(0x7A, 10, 0, -8, 3), Insn(0xB7, 1, 0, 0, 5), Insn(0x18, 2, 4, 0, 12), Insn(0), Insn(0xBF, 3, 10),
        Insn(0x07, 3, 0, 0, -8), Insn(0xB7, 4), Insn(0x85, 0, 0, 0, 181), Insn(0x79, 7, 10, -8), Insn(0x18, 4, 2),
        Insn(0), Insn(0x0F, 4, 7), Insn(0x71, 3, 4), Insn(0xB7), Insn(0x95),
    )  # fmt: skip
    step = (Insn(0x79, 3, 2), Insn(0x07, 3, 0, 0, 40), Insn(0x7B, 2, 3), Insn(0xB7), Insn(0x95))
    value = MapSpec("ARRAY", 4, 64, 1, name="one")
    program = Program((*main, *step), btf=Types(main=0, step=15), maps={9: value}, license="GPL")
    assert said(program, "6.1") == ""
    assert said(program, "6.7").startswith(("R4 ", "invalid access to map value"))


def test_tags_were_of_another_digest() -> None:
    assert not profile("6.12").sha256_tags
    assert profile("6.18").sha256_tags


def test_a_map_kind_that_came_later_is_refused() -> None:
    insns = (Insn(0x18, 1, 1), Insn(0), Insn(0xB7), Insn(0x95))
    program = Program(insns, maps={0: MapSpec("BLOOM_FILTER", 0, 8, 4, name="bloom")})
    verify(program, kernel="5.16")
    with pytest.raises(ProgramRefused, match=r"BLOOM_FILTER came with Linux 5\.16") as caught:
        verify(program, kernel="5.15")
    assert caught.value.errno == 22
