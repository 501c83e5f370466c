"""The rows of helpers held against the live kernel: a program per number, as root, with CAP_BPF alone, and as nobody.

Which helpers a socket filter may call at all, with which privilege, and which only under a GPL-compatible license: what
`pktbpf helpers` lists is generated from these rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from verifier_oracle import Oracle, Verdict

from pktbpf.abi.helpers import NAMES, ROWS, allowed
from pktbpf.asm.builder import R0, build, call, exit_, mov64_imm
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

pytestmark = pytest.mark.kernel

NUMBERS = range(1, len(NAMES) + 20)
ABSENT = ("program of this type cannot use helper", "unknown func", "invalid func")
RESTRICTED = "cannot call GPL-restricted function from non-GPL compatible program"
SLEEPING = "helper call might sleep in a non-sleepable prog"


@pytest.fixture(scope="module", params=["root", "cap_bpf", "none"])
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[str, Oracle]]:
    try:
        syscall.available()
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    oracle = Oracle()
    if oracle.live_version() < (6, 16):
        pytest.skip("the rows are those of Linux 6.18")
    with ExitStack() as stack:
        if request.param != "root":
            stack.enter_context(oracle.unprivileged(request.param))
        yield request.param, oracle


def answer(oracle: Oracle, privilege: str, number: int, *, gpl: bool = True) -> Verdict:
    """What the verifier says to a program that calls nothing but this."""
    program = build([call(number), mov64_imm(R0, 0), exit_()])
    return oracle.verdict(program.insns, privilege, gpl=gpl)


def test_what_may_be_called(asked: tuple[str, Oracle]) -> None:
    privilege, oracle = asked
    log = {number: answer(oracle, privilege, number).log for number in NUMBERS}
    callable_ = {number for number, text in log.items() if not any(absent in text for absent in ABSENT)}
    assert callable_ == {number for number in NUMBERS if allowed(number, privilege)}
    assert {row.id for row in ROWS if row.sleeps} & callable_ == {n for n, text in log.items() if SLEEPING in text}


def test_what_wants_a_license(asked: tuple[str, Oracle]) -> None:
    privilege, oracle = asked
    numbers = [number for number in NUMBERS if allowed(number, privilege)]
    restricted = {n for n in numbers if RESTRICTED in answer(oracle, privilege, n, gpl=False).log}
    assert restricted == {row.id for row in ROWS if row.gpl_only and row.id in numbers}
