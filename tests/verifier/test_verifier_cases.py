"""Programs on which pktbpf and the kernel once differed, or that stand for a rule: our verdict and the live one."""

from __future__ import annotations

import os

import pytest
from verifier_cases import Case, cases, ours
from verifier_oracle import Oracle, plain

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    found, wanted = ours(case.insns, case.privilege), case.verdict
    assert (found.errno, plain(found.line)) == (wanted.errno, plain(wanted.line))
    assert wanted.insn is None or found.insn == wanted.insn
    assert found.counts == (case.counts or found.counts)


@pytest.mark.kernel
def test_kernel_agrees_with_the_cases() -> None:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    oracle = Oracle()
    different = []
    for privilege in ("root", "cap_bpf", "none"):
        chosen = [case for case in CASES if case.privilege == privilege]
        for case in chosen:
            found = oracle.ask(case.insns, privilege)
            if (found.errno, found.insn, found.line) != (case.verdict.errno, case.verdict.insn, case.verdict.line):
                different.append((case.name, found.errno, found.insn, found.line))
            if case.counts not in ((), found.counts):
                different.append((case.name, *found.counts))
    assert not different
