"""Programs that nothing has checked: random instructions and mutated valid programs end in a verdict or a fault.

What they may touch are their stack, the context and their maps; guards around the maps' memory must not change.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from helper_generate import Generator
from helper_lab import Ours

from pktbpf.engine.base import Fault
from pktbpf.errors import MapError
from pktbpf.isa.extended import BY_CODE, Insn
from pktbpf.maps.face import Map
from pktbpf.program import Program

COUNT = int(os.environ.get("PKTBPF_HOSTILE_PROGRAMS", "1000"))
PACKET = bytes(range(64))


def _mutated(source: random.Random, program: Program) -> Program:
    insns = list(program.insns)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(insns))
        change = source.choice(("dst", "src", "off", "imm", "code"))
        insn = insns[at]
        if change == "code":
            insn = insn._replace(code=source.choice(list(BY_CODE)) if source.random() < 0.8 else source.randrange(256))
        elif change in ("dst", "src"):
            insn = insn._replace(**{change: source.randrange(11)})
        elif change == "off":
            insn = insn._replace(off=source.choice((0, -1, 1, 8, -512, 32767, source.randint(-200, 200))))
        else:
            insn = insn._replace(imm=source.choice((0, -1, 1 << 30, source.randrange(215), source.getrandbits(31))))
        insns[at] = insn
    return Program(tuple(insns), maps=program.maps)


def _random(source: random.Random) -> Program:
    codes = list(BY_CODE)
    insns = tuple(
        Insn(source.choice(codes), source.randrange(11), source.randrange(11), source.randint(-20, 20),
             source.choice((source.randrange(215), source.getrandbits(31), -1)))
        for _ in range(source.randint(1, 40))
    )  # fmt: skip
    return Program(insns)


def _run(programs: dict[str, Program], specs: dict[str, object], guard: Map, limit: float = 2.0) -> None:
    before = time.process_time()
    try:
        side = Ours(programs, specs, every_group=True)  # type: ignore[arg-type]
    except MapError:  # an instruction names a map that is not there
        return
    side.filter.runner.budget = 200_000
    for packet in (PACKET, b"", PACKET * 20):
        outcome = side.filter.outcome(packet)
        assert int(outcome.fault[0]) in {int(f) for f in Fault}
        assert not outcome.fault[0] or not outcome.verdict[0]
    for found in side.maps.values():
        if found.kind == "RINGBUF":
            found.records()
        else:
            list(found.raw_items())
    assert time.process_time() - before < limit
    assert guard.storage.blocks[-1].tobytes() == b"\xa5" * guard.storage.blocks[-1].nbytes


def test_unchecked_programs_stay_inside_their_memory() -> None:
    source = random.Random(3)
    guard = Map("ARRAY", 4, 4096, 16)
    guard.storage.blocks[-1][:] = 0xA5
    _run({"main": _random(source)}, {}, guard, limit=600)  # compiles
    for seed in range(COUNT):
        if seed % 4 == 0:
            _run({"main": _random(source)}, {}, guard)
            continue
        programs, specs = Generator(40_000 + seed).case()
        mutated = {name: _mutated(source, program) for name, program in programs.items()}
        _run(mutated, dict(specs), guard)
    assert np.all(guard.storage.blocks[-1] == 0xA5)


def test_forged_objects_and_sizes_reach_nothing() -> None:
    script = Path(__file__).with_name("forged_calls.py")
    done = subprocess.run([sys.executable, str(script), "0", "1500"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50
