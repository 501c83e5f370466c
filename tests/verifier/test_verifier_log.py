"""The log at every level, as the kernel's: its form, and line by line what the live kernel writes."""

from __future__ import annotations

import os
import re

import pytest
from verifier_cases import made, ours
from verifier_generate import programs
from verifier_oracle import Oracle

from pktbpf.errors import ProgramRefused, UsageError
from pktbpf.isa.extended import Insn
from pktbpf.program import Program
from pktbpf.verifier import verify

BOUNDED = (
    Insn(0x61, 7, 1, 0, 0), Insn(0x25, 7, 0, 1, 3), Insn(0xB7, 7, 0, 0, 0), Insn(0xB7, 0, 0, 0, 0), Insn(0x95),
)  # fmt: skip


def log(insns: tuple[Insn, ...], level: int) -> str:
    """What verify or its error carries."""
    try:
        return verify(made(insns), log_level=level).log
    except ProgramRefused as refused:
        return refused.log


def test_level_2_shows_every_path() -> None:
    assert log(BOUNDED, 2).splitlines() == [
        "func#0 @0",
        "Live regs before insn:",
        "      0: .1........ (61) r7 = *(u32 *)(r1 +0)",
        "      1: .......7.. (25) if r7 > 0x3 goto pc+1",
        "      2: .......... (b7) r7 = 0",
        "      3: .......... (b7) r0 = 0",
        "      4: 0......... (95) exit",
        "0: R1=ctx() R10=fp0",
        "0: (61) r7 = *(u32 *)(r1 +0)          ; R1=ctx() "
        "R7=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        "1: (25) if r7 > 0x3 goto pc+1         ; R7=scalar(smin=smin32=0,smax=umax=smax32=umax32=3,var_off=(0x0; 0x3))",
        "2: (b7) r7 = 0                        ; R7=0",
        "3: (b7) r0 = 0                        ; R0=0",
        "4: (95) exit",
        "",
        "from 1 to 3: R1=ctx() R7=scalar(smin=umin=umin32=4,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R10=fp0",
        "3: R1=ctx() R7=scalar(smin=umin=umin32=4,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff)) R10=fp0",
        "3: (b7) r0 = 0                        ; R0=0",
        "4: (95) exit",
        "processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0",
    ]  # fmt: skip


def test_level_1_of_an_accepted_program_is_one_line() -> None:
    assert re.fullmatch(r"processed 7 insns .*\n", log(BOUNDED, 1))


def test_level_4_adds_time_and_stack() -> None:
    lines = log(BOUNDED, 4).splitlines()
    assert re.fullmatch(r"verification time \d+ usec", lines[0])
    assert lines[1] == "stack depth 0"


def test_a_refusal_ends_with_the_reason() -> None:
    text = log((Insn(0xBF, 0, 5), Insn(0x95)), 1)
    assert text.splitlines()[:3] == ["0: R1=ctx() R10=fp0", "0: (bf) r0 = r5", "R5 !read_ok"]


def test_levels_have_three_bits() -> None:
    with pytest.raises(UsageError, match="log level 8"):
        verify(Program(BOUNDED), log_level=8)


@pytest.mark.kernel
def test_lines_are_the_kernels() -> None:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    oracle = Oracle()
    if oracle.live_version() < (6, 18):
        pytest.skip("the newest log is that of Linux 6.18")
    same = lines = 0
    for feature in ("arithmetic", "linked", "joins", "spills", "lookup"):
        for _, _, insns in programs(77_000, 60, feature):
            if ours(insns, "root").errno == 7:
                continue
            wanted, found = (_plain(text) for text in (oracle.verdict(insns, level=2).log, log(insns, 2)))
            lines += len(wanted)
            same += len(set(wanted) & set(found)) + len(wanted) - len(set(wanted))
    assert same > lines * 0.97, (same, lines)


def _plain(text: str) -> list[str]:
    """Without addresses, alignment and the kernel's debugging of stack liveness."""
    text = re.sub(r"= 0xffff[0-9a-f]{12}", "= 0x0", text)
    return [re.sub(" +;", " ;", line) for line in text.splitlines() if not re.match(r"\(\d*(,\d+)*\) ", line)]
