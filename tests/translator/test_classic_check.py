"""Each rule of the classic checks: which instruction is refused, with which errno and which words."""

from __future__ import annotations

import errno

import pytest

from pktbpf.errors import ProgramRefused
from pktbpf.isa.classic import BY_NAME, ClassicInsn
from pktbpf.program import ClassicProgram
from pktbpf.translator import check, kernel_size


def program(*steps: tuple[str | int, int, int, int] | tuple[str | int, int] | tuple[str]) -> ClassicProgram:
    """Steps are (row name or opcode, k, jt, jf)."""
    insns = []
    for step in steps:
        name, k, jt, jf = (*step, 0, 0, 0)[:4]
        insns.append(ClassicInsn(BY_NAME[name].code if isinstance(name, str) else name, jt, jf, k))
    return ClassicProgram(tuple(insns))


RET = ("RET_K", 0)

REFUSED = {
    "opcode": (program((0xFF, 0), RET), 0, "opcode"),
    "opcode above 8 bits": (program((0x106, 0), RET), 0, "opcode"),
    "ret x": (program((0x0E, 0)), 0, "opcode"),
    "ldx abs": (program((0x21, 0), RET), 0, "opcode"),
    "div by 0": (program(("DIV_K", 0), RET), 0, "by the constant 0"),
    "mod by 0": (program(("MOD_K", 0), RET), 0, "by the constant 0"),
    "shift": (program(("LSH_K", 32), RET), 0, "shift by 32"),
    "shift right": (program(RET, ("RSH_K", 0x80000000), RET), 1, "shift by"),
    "scratch": (program(("ST", 16), RET), 0, "M[16]"),
    "scratch load": (program(("LDX_MEM", 99), RET), 0, "M[99]"),
    "ja": (program(("JA", 1), RET), 0, "leaves the program"),
    "ja backwards": (program(RET, ("JA", 0xFFFFFFFF), RET), 1, "leaves the program"),
    "jt": (program(("JEQ_K", 0, 1, 0), RET), 0, "true branch goes to instruction 2"),
    "jf": (program(("JSET_X", 0, 0, 255), RET), 0, "false branch goes to instruction 256"),
    "ancillary": (program(("LD_ABS_W", 0xFFFFF040), RET), 0, "no ancillary load"),
    "ancillary gap": (program(("LD_ABS_B", 0xFFFFF001), RET), 0, "no ancillary load"),
    "last": (program(RET, ("LD_IMM", 0)), 1, "not a ret"),
    "unwritten": (program(("LD_MEM", 0), ("RET_A",)), 0, "M[0] is read"),
    "one path": (program(("JEQ_K", 0, 1, 0), ("ST", 3), ("LD_MEM", 3), ("RET_A",)), 2, "M[3] is read"),
    "ret is no end": (program(("JEQ_K", 0, 0, 2), ("ST", 1), RET, ("LD_MEM", 1), ("RET_A",)), 3, "M[1] is read"),
    "far jump": (
        program(("JA", 2200), *[("LD_ABS_W", 0x9000)] * 2200, RET), 0, "longer than 32767",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    made, insn, words = REFUSED[name]
    with pytest.raises(ProgramRefused) as caught:
        check(made)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.insn == insn
    assert words in caught.value.reason
    assert "\n" not in str(caught.value)


def test_length() -> None:
    for insns in ((), (ClassicInsn(6),) * 4097):
        with pytest.raises(ProgramRefused) as caught:
            check(ClassicProgram(insns))
        assert (caught.value.errno, caught.value.insn) == (errno.EINVAL, None)
    check(ClassicProgram((ClassicInsn(6),) * 4096))


def test_opcode_errors_win_over_the_last_instruction() -> None:
    with pytest.raises(ProgramRefused) as caught:
        check(program(("LD_IMM", 0), (0xFF, 0)))
    assert caught.value.insn == 1
    assert "opcode" in caught.value.reason


ACCEPTED = {
    "unreachable code": program(RET, ("LD_ABS_W", 0), ("JA", 0), RET),
    "indirect load at an ancillary offset": program(("LD_IND_W", 0xFFFFF040), RET),
    "header length at an ancillary offset": program(("LDX_MSH", 0xFFFFF040), RET),
    "written on both paths": program(("JEQ_K", 0, 2, 0), ("ST", 3), ("JA", 1), ("ST", 3), ("LD_MEM", 3), ("RET_A",)),
    "written by X": program(("STX", 15), ("LD_MEM", 15), ("RET_A",)),
    "division by X": program(("DIV_X",), ("MOD_X",), RET),
    "shift by X": program(("LDX_IMM", 99), ("LSH_X",), RET),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    check(ACCEPTED[name])


def test_memory_limit_counts_the_kernels_own_translation() -> None:
    longest = program(*[("LD_IND_W", 4)] * 100, RET)
    size = kernel_size.PROG_HEADER + 8 * kernel_size.converted_size(longest.insns)
    check(longest, optmem_max=size + 1)
    with pytest.raises(ProgramRefused) as caught:
        check(longest, optmem_max=size)
    assert (caught.value.errno, caught.value.insn) == (errno.ENOMEM, None)
