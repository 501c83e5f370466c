"""Whatever bytes are given, there is a verdict: accepted, or refused with errno and words. Nothing else escapes.

Random words, damaged objects whose every program is verified, and damaged instructions of good programs.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest
from verifier_cases import made, ours
from verifier_generate import features, program
from verifier_oracle import kernel_types

import pktbpf
from pktbpf.errors import ObjectError, ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.objfile import Object, load_object
from pktbpf.objfile.load import read_elf_btf
from pktbpf.program import Program
from pktbpf.verifier import walk

ROOT = Path(__file__).parents[2]
SRC = ROOT / "tests" / "objfile" / "src"
OBJECTS = sorted(SRC.glob("*.o")) + sorted((ROOT / "filters" / "ebpf").rglob("*.o"))
LONGEST = 3000
KCONFIG = {"LINUX_KERNEL_VERSION": "1"}
EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0")


def random_programs(seed: int, count: int) -> list[tuple[Insn, ...]]:
    """Random words, half of them with opcodes that exist."""
    rng = random.Random(seed)
    codes = [code for code in range(256) if Insn(code, 0, 0, 0, 0).row or code & 7 in (4, 5, 6, 7)]
    found = []
    for _ in range(count):
        insns = []
        for _ in range(rng.randrange(1, 12)):
            code = rng.choice(codes) if rng.random() < 0.8 else rng.randrange(256)
            imm = rng.choice((0, 1, rng.randint(-(1 << 31), (1 << 31) - 1)))
            insns.append(Insn(code, rng.randrange(16), rng.randrange(16), rng.randint(-4, 6), imm))
        found.append((*insns, Insn(0x95)))
    return found


def check(seed: int, count: int) -> None:
    """Every one has a verdict for every privilege."""
    for insns in random_programs(seed, count):
        for privilege in ("root", "none"):
            verdict = ours(insns, privilege)
            assert verdict.errno == 0 or verdict.line or verdict.errno == 7


def test_random_words_have_a_verdict() -> None:
    check(1, 3000)


@pytest.mark.parametrize("privilege", ["root", "none"])
def test_every_opcode_may_stand_last(privilege: str) -> None:
    for code, imm in itertools.product(range(256), (0, 1, 5)):
        last = Insn(code, 1, 2, 0, imm)
        for insns in ((last,), (Insn(0xB7), last), (last, Insn(0x95))):
            judged(Program(insns), privilege)


@pytest.mark.long
def test_many_random_words_have_a_verdict() -> None:
    check(2, 100_000)


def judged(found: Program, privilege: str) -> str:
    """accepted, or refused with everything that a refusal has."""
    problem = None
    try:
        pktbpf.verify(found, privilege=privilege, kernel_btf=kernel_types())
    except ProgramRefused as refused:
        problem = refused
    if problem is None:
        return "accepted"
    assert problem.errno
    assert problem.reason
    assert "\n" not in str(problem)
    return "refused"


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """A few bytes or words changed."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8, 40))):
        at = rng.randrange(len(out))
        if rng.random() < 0.7:
            out[at] = rng.choice((rng.randrange(256), 0, 1, 4, 8, 127, 128, 255, out[at] ^ 1 << rng.randrange(8)))
        else:
            word = rng.choice(EXTREMES)
            out[at : at + len(word)] = word
    return bytes(out)


def code_damaged(found: Program, rng: random.Random) -> Program:
    """A program with bytes of its instructions changed; what names maps and functions stays where it was."""
    raw = damaged(found.to_bytes(), rng)[: 8 * len(found)]
    return Program.from_bytes(
        raw, maps=found.maps, kfuncs=found.kfuncs, kvars=found.kvars, license=found.license, btf=found.btf
    )


def check_objects(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Damaged objects: none loads but as an Object, and every program in it has a verdict."""
    monkeypatch.setattr(walk, "MAX_INSNS", LONGEST)
    rng, seen = random.Random(seed), Counter[str]()
    raws = [path.read_bytes() for path in OBJECTS]
    target = read_elf_btf((SRC / "core_target.o").read_bytes(), "core_target.o")
    for _ in range(count):
        one_line, found = "", None
        try:
            found = load_object(damaged(rng.choice(raws), rng), btf=target, kconfig=KCONFIG, cpus=1)
        except ObjectError as broken:
            one_line = str(broken)
        if found is None:
            assert one_line
            assert "\n" not in one_line
            seen["no object"] += 1
            continue
        assert isinstance(found, Object)
        for one in found.programs.values():
            seen[judged(one, rng.choice(("root", "cap_bpf", "none")))] += 1
    return seen


def check_code(seed: int, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Programs of objects and of every feature of the generator, their instructions damaged."""
    monkeypatch.setattr(walk, "MAX_INSNS", LONGEST)
    rng, seen = random.Random(seed), Counter[str]()
    target = read_elf_btf((SRC / "core_target.o").read_bytes(), "core_target.o")
    known: list[Program] = []
    for path in OBJECTS:
        try:
            found = load_object(path, btf=target, kconfig=KCONFIG, cpus=1)
        except ObjectError:
            continue  # one of the objects that no loader takes
        assert isinstance(found, Object)
        known += found.programs.values()
    names = sorted(features())
    for number in range(count):
        one = rng.choice(known) if rng.random() < 0.5 else made(program(seed + number, rng.choice(names))[1])
        seen[judged(code_damaged(one, rng), rng.choice(("root", "cap_bpf", "none")))] += 1
    return seen


def test_damaged_objects_have_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = check_objects(21, 400, monkeypatch)
    assert min(seen["no object"], seen["accepted"], seen["refused"]) > 0, seen


def test_damaged_code_has_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = check_code(22, 1500, monkeypatch)
    assert min(seen["accepted"], seen["refused"]) > 0, seen


@pytest.mark.long
def test_many_damaged_objects_have_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum(check_objects(23, 20_000, monkeypatch).values()) >= 20_000
    assert sum(check_code(24, 60_000, monkeypatch).values()) == 60_000
