"""The compiled loop and the plain machines give the same verdicts and faults, for programs of every kind.

Random words that nobody checked are among them: whatever they do, both end, in bounds, with the same outcome.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from pktbpf import trust
from pktbpf.capture.batch import batch_of
from pktbpf.engine import get as get_engine
from pktbpf.engine.base import PROFILES, Env, Fault, Outcome
from pktbpf.engine.skb import view
from pktbpf.filter import verify
from pktbpf.isa.extended import ROWS, Insn, Kind
from pktbpf.parity.packets import PacketMaker
from pktbpf.parity.programs import ProgramMaker
from pktbpf.program import Program, Verified

SEED = 71_003
BUDGET = 4000
# References to maps and functions are another test's: without live maps there is nothing to run.
PLAIN_ROWS = [row for row in ROWS if row.kind is not Kind.LOAD_IMM64 or row.name == "LD_IMM64"]


def outcomes(verified: Verified, frames: list[bytes], profile: str, wirelens: list[int] | None = None) -> list[Outcome]:
    found = []
    env = Env(seed=SEED, budget=BUDGET)
    for name in ("interpreter", "reference"):
        runner = get_engine(name).prepare(verified, env)
        with view(batch_of(frames, wirelens=wirelens), PROFILES[profile], env, meta=True) as skbs:
            found.append(runner.run(skbs))
    return found


def check_equal(verified: Verified, frames: list[bytes], profile: str, wirelens: list[int] | None, what: str) -> None:
    ours, plain = outcomes(verified, frames, profile, wirelens)
    assert (ours.fault == plain.fault).all(), f"{what}: {ours.fault} {plain.fault} {verified.program.insns}"
    assert (ours.verdict == plain.verdict).all(), f"{what}: {ours.verdict} {plain.verdict} {verified.program.insns}"


@pytest.mark.parametrize("profile", list(PROFILES))
def test_classic_programs(profile: str) -> None:
    programs, packets, picks = ProgramMaker(SEED), PacketMaker(SEED), random.Random(SEED)
    for number in range(80):
        frames = [packets.any() for _ in range(12)]
        wirelens = [len(f) + picks.choice((0, 0, 0, 1, 40)) for f in frames]
        check_equal(verify(programs.valid()), frames, profile, wirelens, f"seed {SEED}, program {number}")


def random_insn(picks: random.Random, length: int) -> Insn:
    """Mostly a real operation with plausible operands, now and then any eight bytes."""
    if picks.random() < 0.03:
        insn = Insn.decode(picks.randbytes(8))
        return insn if insn.code != 0x18 else insn._replace(src=0)
    row = picks.choice(PLAIN_ROWS)
    values = {
        "dst": picks.randrange(11), "src": picks.randrange(11),
        "off": picks.choice((-8, -4, -16, 0, 1, 2, 3, picks.randrange(-length, length + 1))),
        "imm": picks.choice((0, 1, -1, 2, 31, 63, 0x7FFFFFFF, -0x80000000, picks.randrange(-(1 << 31), 1 << 31))),
    }  # fmt: skip
    if row.name in ("JA32", "CALL_LOCAL"):
        values["imm"] = picks.randrange(-length, length + 1)
    if row.kind is Kind.LOAD and picks.random() < 0.5:
        values |= {"src": 1, "off": picks.randrange(0, 200)}
    elif row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC) and picks.random() < 0.8:
        values |= {"src" if row.kind is Kind.LOAD else "dst": 10, "off": -8 * picks.randrange(1, 20)}
    if row.name == "CALL_HELPER":
        values["imm"] = picks.choice((7, 8, 99_999))
    fixed = {name: value for name in ("src", "off", "imm") if (value := getattr(row, name)) is not None}
    return Insn(row.code, **{name: values[name] for name in row.uses} | fixed)


def random_program(picks: random.Random) -> Program:
    length = picks.choice((3, 6, 12, 25, 60))
    insns = [random_insn(picks, length) for _ in range(length)]
    if picks.random() < 0.3:  # exercise the fused forms, wherever they stand
        insns[picks.randrange(length) :] = [Insn(0x28, imm=12), Insn(0x15, imm=0x800, off=1), Insn(0x05, off=1)]
    return Program((*insns, Insn(0x95)))


def test_unchecked_programs() -> None:
    picks, packets = random.Random(SEED), PacketMaker(SEED)
    faults: set[int] = set()
    for number in range(700):
        program = random_program(picks)
        frames = [packets.any() for _ in range(3)]
        verified = trust(program)
        check_equal(verified, frames, "packet", None, f"seed {SEED}, program {number}")
        faults |= set(outcomes(verified, frames, "packet")[0].fault.tolist())
    assert {Fault.NONE, Fault.OPCODE, Fault.JUMP, Fault.MEMORY, Fault.BUDGET, Fault.CALL, Fault.CONTEXT} <= faults


@pytest.mark.long
def test_unchecked_programs_at_length() -> None:
    picks, packets = random.Random(SEED + 1), PacketMaker(SEED + 1)
    for number in range(20_000):
        frames = [packets.any() for _ in range(3)]
        check_equal(trust(random_program(picks)), frames, "packet", None, f"seed {SEED + 1}, program {number}")


def test_an_exit_may_have_an_offset() -> None:
    program = trust(Program((Insn(0xB7, 0, imm=7), Insn(0x95, off=5))))
    check_equal(program, [b"any"], "packet", None, "exit")
    assert outcomes(program, [b"any"], "packet")[0].verdict.tolist() == [7]


def test_an_endless_loop_is_cut_off() -> None:
    for outcome in outcomes(trust(Program((Insn(0x05, off=-1),))), [b"x" * 20], "unix"):
        assert outcome.fault.tolist() == [Fault.BUDGET]
        assert outcome.verdict.tolist() == [0]


def test_endless_recursion_is_cut_off() -> None:
    for outcome in outcomes(trust(Program((Insn(0x85, src=1, imm=-1), Insn(0x95)))), [b"x" * 20], "unix"):
        assert outcome.fault.tolist() == [Fault.DEPTH]


def test_verdicts_of_a_batch_do_not_depend_on_their_neighbours() -> None:
    frames = [PacketMaker(SEED).any() for _ in range(50)]
    verified = verify(ProgramMaker(SEED + 2).valid(24))
    together = outcomes(verified, frames, "packet")[0]
    alone = [outcomes(verified, [frame], "packet")[0] for frame in frames]
    assert together.verdict.tolist() == [int(o.verdict[0]) for o in alone]
    assert together.fault.tolist() == [int(o.fault[0]) for o in alone]


def test_coverage_counts_equal_the_plain_machines_steps() -> None:
    from pktbpf.engine.interpreter import ENGINE
    from pktbpf.engine.reference import ENGINE as PLAIN
    from pktbpf.engine.reference_extended import Exited
    from pktbpf.engine.reference_packet import Faulted, Packet

    frames = [PacketMaker(SEED).any() for _ in range(40)]
    programs = ProgramMaker(SEED)
    for _ in range(20):
        verified = verify(programs.valid())
        runner = ENGINE.prepare(verified, Env(seed=SEED), coverage=True)
        plain = PLAIN.prepare(verified, Env(seed=SEED))
        counted = np.zeros(len(verified.program.insns), dtype=np.int64)
        with view(batch_of(frames), PROFILES["packet"], Env(), meta=True) as skbs:
            runner.run(skbs)
            for number in range(len(frames)):
                machine = plain.machine(Packet.of(skbs, number))
                before = 0
                try:
                    for slot in machine.steps(verified.program.insns):
                        counted[slot] += 1
                        before = machine.pc
                except (Exited, Faulted):
                    counted[before] += 1
        assert runner.counts is not None
        assert runner.counts[: len(counted), 0].astype(np.int64).tolist() == counted.tolist()
