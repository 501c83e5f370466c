"""Whatever bytes are given, there is a verdict; what is accepted runs within its bounds on the reference engine."""

from __future__ import annotations

import random

import pytest
from verifier_cases import ours
from verifier_generate import programs

from pktbpf import Filter
from pktbpf.isa.extended import Insn
from pktbpf.program import Program
from pktbpf.verifier import walk


def random_programs(seed: int, count: int) -> list[tuple[Insn, ...]]:
    """Random words, half of them with opcodes that exist."""
    rng = random.Random(seed)
    codes = [code for code in range(256) if Insn(code, 0, 0, 0, 0).row or code & 7 in (4, 5, 6, 7)]
    made = []
    for _ in range(count):
        insns = []
        for _ in range(rng.randrange(1, 12)):
            code = rng.choice(codes) if rng.random() < 0.8 else rng.randrange(256)
            imm = rng.choice((0, 1, rng.randint(-(1 << 31), (1 << 31) - 1)))
            insns.append(Insn(code, rng.randrange(16), rng.randrange(16), rng.randint(-4, 6), imm))
        made.append((*insns, Insn(0x95)))
    return made


def check(seed: int, count: int) -> None:
    """Every one has a verdict for every privilege."""
    for insns in random_programs(seed, count):
        for privilege in ("root", "none"):
            verdict = ours(insns, privilege)
            assert verdict.errno == 0 or verdict.line or verdict.errno == 7


def test_random_words_have_a_verdict() -> None:
    check(1, 3000)


@pytest.mark.long
def test_many_random_words_have_a_verdict() -> None:
    check(2, 100_000)


def test_accepted_programs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_INSNS", 5000)
    packet = bytes(range(64))
    ran = 0
    for feature in ("arithmetic", "packet", "linked", "spills"):
        for _, _, insns in programs(88_000, 150, feature):
            if any(insn.code == 0x18 and insn.src for insn in insns) or ours(insns, "root").errno:
                continue
            verdict = Filter(Program(insns), engine="interpreter").run(packet)
            assert 0 <= verdict <= 0xFFFFFFFF
            ran += 1
    assert ran > 100
