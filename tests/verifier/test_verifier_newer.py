"""Refusals by older kernels name the feature that is missing, and the version that accepts the program."""

from __future__ import annotations

import pytest
from verifier_cases import VERSIONS as FOLDER
from verifier_cases import Case, made, read

from pktbpf.errors import ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.program import MapSpec, Program
from pktbpf.verifier import VerifierRefused, newer, verify
from pktbpf.verifier.profile import NEWEST, VERSIONS
from pktbpf.verifier.rules import BY_NAME, words

CASES = {
    f"{case.name}-{case.kernel}": case
    for path in sorted(FOLDER.glob("*.txt")) for case in read(path)
    if case.verdict.errno and case.kernel != NEWEST
}  # fmt: skip
# Cases whose program meets another missing rule first are left out: each of these is one rule and nothing else.
NAMED = [
    "atomics-5.10", "bounds_cpu-6.1", "elides_null-6.12", "empty_may_goto-6.12", "fences-6.12", "half_copies-6.1",
    "linked_halves-6.12", "linked_sums-6.1", "long_goto-5.10", "loops_anywhere-6.1", "may_goto-6.1", "narrow_fills-6.1",
    "negation-6.12", "never_null_memory-6.1", "ordered_atomics-6.12", "ranges-6.1", "signed_instructions-6.1",
    "signed_products-6.12", "small_frames-6.1", "tracks_swaps-6.12", "unknown_products-6.1", "zero_spills-6.1",
]  # fmt: skip


def refused(program: Program, kernel: str, privilege: str = "root") -> VerifierRefused:
    """The refusal by a version."""
    with pytest.raises(VerifierRefused) as caught:
        verify(program, privilege=privilege, kernel=kernel)
    return caught.value


def accepts(case: Case, kernel: str) -> bool:
    try:
        verify(made(case.insns), privilege=case.privilege, kernel=kernel)
    except ProgramRefused:
        return False
    return True


@pytest.mark.parametrize("name", NAMED)
def test_the_missing_rule_is_named(name: str) -> None:
    case = CASES[name]
    rule = BY_NAME[case.name]
    remedy = refused(made(case.insns), case.kernel, case.privilege).explanation.remedy
    assert remedy.kind == "kernel"
    assert remedy.data is not None
    assert remedy.data["feature"] == f'"{words(rule)}"'
    assert remedy.data["since"] == rule.since
    assert f"kernel {case.kernel} lacks" in remedy.text
    assert rule.notice in remedy.text


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_said_of_versions_holds(name: str) -> None:
    """Accepted from there on; where no version is named for it, none of the long-term ones up to the newest."""
    case = CASES[name]
    remedy = refused(made(case.insns), case.kernel, case.privilege).explanation.remedy
    if remedy.kind != "kernel":
        assert not accepts(case, NEWEST) or case.verdict.insn is None
        return
    assert remedy.data is not None
    accepted = remedy.data["accepted"]
    assert (accepted is not None) == accepts(case, NEWEST)
    if accepted is not None:
        later = [one for one in VERSIONS if newer.version_of(one) >= newer.version_of(accepted)]
        assert all(accepts(case, one) for one in [accepted, *later])


def test_helpers_kernel_functions_and_maps_are_named() -> None:
    helper = Program((Insn(0x85, imm=208), Insn(0xB7), Insn(0x95)), license="GPL")
    said = refused(helper, "5.15").explanation.remedy.text
    assert said.startswith("kernel 5.15 lacks bpf_ktime_get_tai_ns, which came with 6.1; the program is accepted from ")
    spec = MapSpec("BLOOM_FILTER", 0, 8, 8)
    table = Program((Insn(0x18, 1, 1), Insn(0), Insn(0xB7), Insn(0x95)), maps={0: spec}, license="GPL")
    said = refused(table, "5.10").explanation.remedy.text
    assert said.startswith("kernel 5.10 lacks maps of type BLOOM_FILTER, which came with 5.16")


def test_what_every_version_refuses_keeps_its_remedy() -> None:
    program = Program((Insn(0xBF, 0, 7), Insn(0x95)))
    texts = {refused(program, kernel).explanation.remedy.text for kernel in VERSIONS}
    assert texts == {"set r7 on every path that leads to instruction 0"}


def test_a_version_that_takes_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newer, "LONGEST", 2)
    case = CASES["may_goto-6.1"]
    assert refused(made(case.insns), "6.1", case.privilege).explanation.remedy.kind == "encoding"
