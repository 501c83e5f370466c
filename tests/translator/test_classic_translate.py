"""Classic to extended: the shape of every instruction's translation, and the same verdicts on both machines."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from pktbpf.abi import ancillary
from pktbpf.engine import reference
from pktbpf.engine.base import PROFILES, Env
from pktbpf.engine.skb import view
from pktbpf.isa.classic import BY_NAME, ROWS, ClassicInsn
from pktbpf.isa.extended import Insn
from pktbpf.parity.packets import PacketMaker
from pktbpf.parity.programs import ProgramMaker
from pktbpf.program import ClassicProgram, Program, Verified
from pktbpf.translator import translate

SEED = 20_251


def body(*steps: ClassicInsn) -> list[Insn]:
    """What a step becomes, without the prologue and the final `ret #0`."""
    made = translate(ClassicProgram((*steps, ClassicInsn(6))))
    return list(made.insns[3 : made.starts[len(steps)]])


def names(insns: list[Insn]) -> list[str]:
    return [insn.row.name if insn.row else "?" for insn in insns]


def step(name: str, k: int = 0, jt: int = 0, jf: int = 0) -> ClassicInsn:
    return ClassicInsn(BY_NAME[name].code, jt, jf, k)


def test_prologue_clears_both_registers_and_keeps_the_context() -> None:
    made = translate(ClassicProgram((ClassicInsn(6),)))
    assert names(list(made.insns)) == ["MOV32_IMM", "MOV32_IMM", "MOV64_REG", "MOV32_IMM", "EXIT"]


def test_a_zero_divisor_ends_the_filter() -> None:
    assert names(body(step("DIV_X"))) == ["MOV32_REG", "JNE64_IMM", "MOV32_IMM", "EXIT", "DIV32_REG"]


@pytest.mark.parametrize(
    ("jt", "jf", "expected"),
    [(1, 0, ["JEQ64_IMM"]), (0, 1, ["JNE64_IMM"]), (1, 2, ["JEQ64_IMM", "JA"]), (0, 0, ["JEQ64_IMM"])],
)
def test_equality_takes_one_or_two_jumps(jt: int, jf: int, expected: list[str]) -> None:
    filler = [step("RET_K")] * 3
    made = translate(ClassicProgram((step("JEQ_K", 5, jt, jf), *filler)))
    assert names(list(made.insns[3 : 3 + len(expected)])) == expected


def test_jset_is_never_inverted() -> None:
    made = translate(ClassicProgram((step("JSET_K", 5, 0, 1), step("RET_K"), step("RET_K"))))
    assert names(list(made.insns[3:5])) == ["JSET64_IMM", "JA"]


def test_a_negative_constant_is_compared_unsigned() -> None:
    made = translate(ClassicProgram((step("JGT_K", 0x80000000, 1, 0), step("RET_K"), step("RET_K"))))
    assert names(list(made.insns[3:5])) == ["MOV32_IMM", "JGT64_REG"]


@pytest.mark.parametrize("row", ancillary.ROWS, ids=lambda row: row.name)
def test_ancillary_loads(row: ancillary.Ancillary) -> None:
    made = translate(ClassicProgram((step("LD_ABS_W", row.k), step("RET_A"))))
    assert bool(made.internal_calls) == (row.name in ("NLATTR", "NLATTR_NEST", "PAY_OFFSET", "HATYPE"))
    assert all(insn.row is not None for insn in made.insns)


def test_dead_code_is_left_out_and_jumps_still_fit() -> None:
    made = translate(ClassicProgram((step("JA", 2), step("LD_LEN"), step("TAX"), step("RET_K", 7))))
    assert made.starts == (3, -1, -1, 4)
    assert made.insns[3].off == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_a_translation(row: object) -> None:
    insn = ClassicInsn(row.code, 0, 0, 1)  # type: ignore[attr-defined]
    steps = [step("ST", 1), insn] if "MEM" in row.name else [insn]  # type: ignore[attr-defined]
    made = translate(ClassicProgram((*steps, step("RET_K"), step("RET_K"))))
    assert all(i.row is not None for i in made.insns)


def verdicts(program: Program, frames: list[bytes], profile: str) -> np.ndarray:  # type: ignore[type-arg]
    from pktbpf.capture.batch import batch_of

    runner = reference.ENGINE.prepare(Verified(program), Env(seed=SEED))
    with view(batch_of(frames), PROFILES[profile], Env(), meta=True) as skbs:
        outcome = runner.run(skbs)
    return np.stack([outcome.verdict, outcome.fault.astype(np.uint32)])


@pytest.mark.parametrize("profile", ["packet", "packet-dgram", "unix"])
def test_the_translation_runs_as_the_classic_machine_does(profile: str) -> None:
    makers = ProgramMaker(SEED), PacketMaker(SEED)
    picks = random.Random(SEED)
    for number in range(150):
        program = translate(makers[0].valid())
        frames = [makers[1].any() if picks.random() < 0.8 else picks.randbytes(30) for _ in range(8)]
        left = verdicts(program, frames, profile)
        right = verdicts(replace(program, classic=None), frames, profile)
        assert (left == right).all(), f"seed {SEED}, program {number}: {program.classic}"
