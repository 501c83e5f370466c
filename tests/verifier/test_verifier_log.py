"""The log at every level, as the kernel's: its form, and line by line what the live kernel writes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from itertools import zip_longest
from pathlib import Path

import pytest
from verifier_cases import kernel_types, made
from verifier_generate import programs
from verifier_oracle import Oracle

import pktbpf
from pktbpf.errors import ProgramRefused, UsageError
from pktbpf.isa.extended import Insn
from pktbpf.kernel.loading import Loaded
from pktbpf.program import Program
from pktbpf.verifier import verify, walk
from pktbpf.verifier.log import LEVEL1, LEVEL2, STATS

FOLDER = Path(__file__).parents[2]
# Not options_loop, whose log of 200,000 lines no buffer holds, nor core_kernel, whose BTF lacks the context's type.
OBJECTS = [
    *(path for path in sorted((FOLDER / "filters" / "ebpf").rglob("*.o")) if path.stem != "options_loop"),
    *(FOLDER / f"tests/objfile/src/{name}.o" for name in ("calls", "core", "globals", "mapkinds", "special")),
]
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


def test_source_lines_stand_before_the_instructions() -> None:
    program = pktbpf.load("filters/ebpf/refused/null_check.o").program()
    with pytest.raises(ProgramRefused) as caught:
        verify(program, log_level=1)
    lines = caught.value.log.splitlines()
    at = lines.index("; *seen += 1; @ null_check.c:24")
    assert lines[at + 1 : at + 3] == ["10: (79) r1 = *(u64 *)(r0 +0)", "R0 invalid mem access 'map_value_or_null'"]


# ---- against the live kernel

# Of so many programs per privilege and level, this share of whole logs equals the kernel's, every line of it. What may
# differ are joins of paths that only one side finds.
COUNT, SHARE = 300, 0.995
ALL = LEVEL1 | LEVEL2 | STATS


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    if os.geteuid():
        pytest.skip("loading programs needs root")
    found = Oracle()
    if found.live_version() < (6, 18):
        pytest.skip("the newest log is that of Linux 6.18")
    return found


_ADDRESS = re.compile(r"(\(18\) r\d+ = )0x(?:ffff[0-9a-f]{12}|0)( +;|$)", re.MULTILINE)


def plain(text: str) -> list[str]:
    """Without addresses, times, names of maps and numbers of the kernel's types, which are the machine's own."""
    text = _ADDRESS.sub(lambda found: found[1] + found[2].strip(), text)
    text = re.sub(r"call (_?_?bpf_\w+)#\d+ *", r"call \1 ", text)
    text = re.sub(r"verification time \d+ usec", "verification time", text)
    return text.splitlines()


def unequal(oracle: Oracle, privilege: str, level: int, first: int, count: int) -> tuple[int, list[str]]:
    """(programs compared, the first difference of each whose logs differ)"""
    compared, different = 0, []
    with oracle.unprivileged(privilege) if privilege != "root" else contextlib.nullcontext():
        for seed, feature, insns in programs(first, count, privilege=privilege):
            try:
                mine = verify(made(insns), privilege=privilege, log_level=level, kernel_btf=kernel_types()).log
            except ProgramRefused as refused:
                if refused.errno in (errno.E2BIG, errno.EOPNOTSUPP):
                    continue
                mine = refused.log
            theirs = oracle.verdict(insns, privilege, level=level).log
            if not theirs or "failed to find the address for kernel symbol" in theirs:
                continue  # longer than the buffer, or about what only this kernel lacks
            compared += 1
            pairs = zip_longest(plain(theirs), plain(mine), fillvalue="<end>")
            found = next(((kernel, ours) for kernel, ours in pairs if kernel != ours), None)
            if found is not None:
                different.append(f"seed {seed} ({feature}): kernel {found[0]!r}, ours {found[1]!r}")
    return compared, different


@pytest.mark.kernel
@pytest.mark.parametrize("level", [LEVEL1, LEVEL2, ALL])
@pytest.mark.parametrize("privilege", ["root", "cap_bpf", "none"])
def test_whole_logs_are_the_kernels(
    oracle: Oracle, privilege: str, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", 3000)
    compared, different = unequal(oracle, privilege, level, 83_000_000, COUNT)
    assert compared > COUNT * 0.9
    assert len(different) <= compared * (1 - SHARE), "\n".join(different[:20])


@pytest.mark.kernel
@pytest.mark.parametrize("path", OBJECTS, ids=[path.stem for path in OBJECTS])
def test_logs_of_objects_are_the_kernels(oracle: Oracle, path: Path) -> None:
    """With source lines, functions and callbacks. Names of maps are left out: those in the kernel have none here."""
    loaded = pktbpf.load(path)
    live = Loaded()
    try:
        for program in loaded.programs.values():
            _, theirs = live.log(program, ALL)
            try:
                mine = verify(program, log_level=ALL, kernel_btf=kernel_types()).log
            except ProgramRefused as refused:
                mine = refused.log
            assert plain(theirs) == plain(re.sub(r"map=[^,]+,", "", mine)), program.name
    finally:
        live.close()
