"""Accepted programs run on the reference engine, and whatever happens there is what the verifier promised.

No access outside memory, no endless run, no read of what nothing wrote, every access where `Verified.facts` says, every
register and stack slot inside a recorded abstract state. `PKTBPF_SOUND_SEED` and `PKTBPF_SOUND_COUNT` choose programs.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections import Counter

import pytest
from sound_machine import BrokenPromise, Judge, installed
from sound_states import record
from sound_world import BUDGET, World
from verifier_cases import made
from verifier_generate import features, program
from verifier_oracle import Sample, kernel_types

from pktbpf import Filter
from pktbpf.abi.helpers import helper_name
from pktbpf.engine.base import Fault
from pktbpf.engine.supported import REFUSED, REFUSED_KFUNCS
from pktbpf.errors import MapError, ProgramRefused
from pktbpf.isa.extended import Insn
from pktbpf.objfile.kernel_btf import running_symbols
from pktbpf.program import Program, trust
from pktbpf.verifier import verify, walk
from pktbpf.verifier.errors import Refusal
from pktbpf.verifier.facts import Access

SEED = int(os.environ.get("PKTBPF_SOUND_SEED", "1000000"))
COUNT = int(os.environ.get("PKTBPF_SOUND_COUNT", "6"))
LONGEST = 3000
PACKETS = 4
_LOOPS = {"loop", "for_each_map_elem", "user_ringbuf_drain"}


def runs_here(tested: Program) -> bool:
    """Whether the engines have all that it calls."""
    helpers = [helper_name(i.imm) for i in tested.insns if i.code == 0x85 and i.src == 0]
    return not any(name in REFUSED for name in helpers) and not any(
        name in REFUSED_KFUNCS for name in tested.kfuncs.values()
    )


def may_be_long(tested: Program) -> bool:
    """Whether only the kernel's own counting ends its loops."""
    return any(i.code == 0xE5 or (i.code == 0x85 and i.src == 0 and helper_name(i.imm) in _LOOPS)
               for i in tested.insns) or bool(tested.kfuncs)  # fmt: skip


def judge(sample: Sample, privilege: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What became of one program: refused, foreign (not for these engines), or judged. Raises BrokenPromise."""
    try:
        verified = verify(
            made(sample), privilege=privilege, kernel_btf=kernel_types(), kernel_symbols=running_symbols()
        )
    except ProgramRefused:
        return "refused"
    tested = verified.program
    if not runs_here(tested):
        return "foreign"
    rng = random.Random(seed)
    try:
        world = World(rng, tested)
    except MapError:
        return "foreign"
    try:
        recorded = record(tested, privilege, world.by_definition, monkeypatch)
    except Refusal:
        recorded = None  # exact comparison takes too many instructions
    env = world.env(BUDGET if may_be_long(tested) else 100 * LONGEST)
    bound = dataclasses.replace(verified, program=world.program)
    runner = Filter(bound, engine="reference", attach=rng.choice(("packet", "unix", "udp")), env=env)
    verdicts = Judge(runner.program, verified.facts, recorded, privilege != "root")
    with monkeypatch.context() as patched:
        installed(patched, verdicts)
        for _ in range(PACKETS):
            packet, metadata = world.packet()
            before = verdicts.steps
            fault = Fault(int(runner.outcome(packet, **metadata).fault[0]))
            if verdicts.foreign:
                return "foreign"
            if fault is Fault.BUDGET and may_be_long(tested):
                continue
            if fault not in (Fault.NONE, Fault.UNDELIVERED) or verdicts.faults:
                raise BrokenPromise(f"the run ends with {fault.name}, {verdicts.faults}")
            if recorded is not None and not may_be_long(tested) and not getattr(sample, "functions", ()):
                steps, processed = verdicts.steps - before, recorded.walk.processed
                if steps > processed:
                    raise BrokenPromise(f"{steps} steps, but the verifier saw only {processed}")
    return "judged" if verdicts.judged else "idle"


def judge_many(privilege: str, feature: str, seeds: range, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what."""
    monkeypatch.setattr(walk, "MAX_INSNS", LONGEST)
    seen: Counter[str] = Counter()
    for seed in seeds:
        _, sample = program(seed, feature, privilege)
        try:
            seen[judge(sample, privilege, seed, monkeypatch)] += 1
        except BrokenPromise as broken:
            raise AssertionError(f"seed {seed} ({feature}, {privilege}): {broken}") from broken
    return seen


@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_accepted_programs_keep_their_promises(privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    for feature in sorted(features(privilege)):
        seen += judge_many(privilege, feature, range(SEED, SEED + COUNT), monkeypatch)
    assert seen["judged"] > sum(seen.values()) // 8, seen


@pytest.mark.long
@pytest.mark.parametrize("privilege", ["root", "none", "cap_bpf"])
def test_many_accepted_programs_keep_their_promises(privilege: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for feature in sorted(features(privilege)):
        judge_many(privilege, feature, range(SEED + 100_000, SEED + 101_000), monkeypatch)


# Programs whose behaviour another one's facts, states or nothing at all vouch for.
_LOAD = (Insn(0x61, 7, 1, 0), Insn(0x57, 7, imm=7), Insn(0xBF, 0, 7), Insn(0x95))
_WIDER = (Insn(0x61, 7, 1, 0), Insn(0x57, 7, imm=8), Insn(0xBF, 0, 7), Insn(0x95))
_STORE = (Insn(0x7A, 10, off=-8, imm=1), Insn(0x79, 1, 10, -8), Insn(0xB7, 0), Insn(0x95))
_LOWER = (Insn(0x7A, 10, off=-8, imm=1), Insn(0x79, 1, 10, -16), Insn(0xB7, 0), Insn(0x95))
_UNSET = (Insn(0xBF, 0, 5), Insn(0x95))


@pytest.mark.parametrize(
    ("promised", "done", "words"),
    [
        (_LOAD, _WIDER, "r7: 0x8 is not in"),
        (_STORE, _LOWER, r"accesses 0x1000001f0\+8, the fact is .*offset=-8"),
        (None, _LOWER, "reads stack bytes that were not written"),
        (None, _UNSET, "reads r5, which was not written"),
    ],
    ids=["value", "place", "stack", "register"],
)
def test_a_broken_promise_is_seen(
    promised: tuple[Insn, ...] | None, done: tuple[Insn, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Program(promised or done)
    facts = verify(other).facts if promised else {at: Access("mixed", None, 8) for at in range(len(done))}
    recorded = record(other, "root", {}, monkeypatch) if promised else None
    program = Program(done)
    installed(monkeypatch, Judge(program, facts, recorded, strict=True))
    with pytest.raises(BrokenPromise, match=words):
        Filter(trust(program), engine="reference").run(bytes(8))


def test_the_same_program_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(_WIDER)
    verdicts = Judge(program, verify(program).facts, record(program, "root", {}, monkeypatch), strict=True)
    installed(monkeypatch, verdicts)
    assert Filter(trust(program), engine="reference").run(bytes(8)) == 8
    assert verdicts.judged == verdicts.steps == len(program)
