"""Thousands of nearly right programs: the verdict of the live kernel's verifier and ours, for three privileges.

Equal means: both accept, or both refuse with the same errno at the same instruction and with the same first line; and
both walked as many instructions and kept as many checkpoints.
`PKTBPF_VERIFIER_SEED` and `PKTBPF_VERIFIER_COUNT` choose other programs.
"""

from __future__ import annotations

import errno
import os
from collections import Counter

import pytest
from verifier_cases import ours
from verifier_freed import Freed
from verifier_generate import programs
from verifier_oracle import MAPS, Oracle, difference

from pktbpf.verifier import walk

SEED = int(os.environ.get("PKTBPF_VERIFIER_SEED", "1000000"))
COUNT = int(os.environ.get("PKTBPF_VERIFIER_COUNT", "7000"))
# Programs with longer walks are left out: the live kernel needs seconds to give up on one.
LONGEST = 20_000

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    found = Oracle()
    if min(found.fds) < 0:
        pytest.skip(f"a map is refused: {[spec.name for (spec, _), fd in zip(MAPS, found.fds, strict=True) if fd < 0]}")
    if found.live_version() < (6, 18):
        pytest.skip("the newest rules are those of Linux 6.18")
    return found


def compare(
    oracle: Oracle, privilege: str, first: int, count: int, freed: Freed
) -> tuple[Counter[str], list[str]]:
    """(how often what, the differing programs)"""
    seen: Counter[str] = Counter()
    different: list[str] = []
    with oracle.allowed(privilege):
        for seed, feature, insns in programs(first, count, privilege=privilege):
            freed.begin()
            mine = ours(insns, privilege)
            if freed.found:
                seen["freed"] += 1
                continue
            if mine.errno == errno.E2BIG and mine.line.startswith("BPF program is too large"):
                seen["long"] += 1
                continue
            kernel = oracle.verdict(insns, privilege)
            seen["refused" if kernel.errno else "accepted"] += 1
            what = difference(kernel, mine)
            if mine.line.startswith("cannot be judged offline"):
                # Needs what only the running kernel has, such as the layout of its structures.
                seen["unjudged"] += 1
            elif what:
                seen[what] += 1
                different.append(
                    f"{what}: seed {seed} ({feature}): kernel {kernel.errno} at {kernel.insn} {kernel.line!r}, "
                    f"ours {mine.errno} at {mine.insn} {mine.line!r}"
                )
    return seen, different


@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_verdicts_are_the_kernels(oracle: Oracle, privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", LONGEST)
    seen, different = compare(oracle, privilege, SEED, COUNT, Freed(monkeypatch))
    assert not different, "\n".join(different[:20])
    assert seen["unjudged"] * 1000 <= COUNT, seen
    assert min(seen["accepted"], seen["refused"]) > COUNT // 6, seen


@pytest.mark.long
@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_many_verdicts_are_the_kernels(oracle: Oracle, privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", LONGEST)
    seen, different = compare(oracle, privilege, SEED + 10_000_000, 170_000, Freed(monkeypatch))
    wrongly_accepted = [line for line in different if line.startswith("verdict") and "ours 0 " in line]
    assert not wrongly_accepted, wrongly_accepted[:20]
    assert len(different) * 1000 < sum(seen.values()), "\n".join(different[:20])
