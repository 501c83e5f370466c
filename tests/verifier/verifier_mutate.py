"""One small change to a program: what makes a right one nearly right."""

from __future__ import annotations

import random

from verifier_oracle import Sample
from verifier_types import FUNCTIONS

from pktbpf.isa.extended import Insn


def mutate(sample: Sample, rng: random.Random) -> Sample:
    """One small change: an instruction dropped, doubled, swapped, an operand or a distance shifted, a function's type
    or first slot made another."""
    code, functions = list(sample), list(sample.functions)
    at = rng.randrange(len(code))
    insn = code[at]
    kind = rng.random()
    if functions and rng.random() < 0.06:
        return _other_function(code, functions, rng)
    if kind < 0.2 and len(code) > 2:
        if insn.code in (0, 0x18):
            return sample
        del code[at]
        for i, other in enumerate(code):
            code[i] = _moved(other, i, at)
        functions = [(slot - (slot > at), name) for slot, name in functions]
    elif kind < 0.4:
        code[at] = insn._replace(off=max(-32768, min(32767, insn.off + rng.choice((-8, -4, -1, 1, 4, 8)))))
    elif kind < 0.55:
        code[at] = insn._replace(imm=max(-(1 << 31), min((1 << 31) - 1, insn.imm + rng.choice((-8, -1, 1, 8, 64)))))
    elif kind < 0.7:
        code[at] = insn._replace(dst=rng.randrange(11))
    elif kind < 0.85:
        code[at] = insn._replace(src=rng.randrange(11))
    elif kind < 0.93:
        code[at] = insn._replace(code=insn.code ^ rng.choice((1, 8, 0x10, 0x18, 0x20, 0x40, 0x80, 3)))
    else:
        other = rng.randrange(len(code))
        code[at], code[other] = code[other], code[at]
    return Sample.of(code, functions)


def _other_function(code: list[Insn], functions: list[tuple[int, str]], rng: random.Random) -> Sample:
    at = rng.randrange(len(functions))
    slot, name = functions[at]
    kind = rng.random()
    if kind < 0.6:
        functions[at] = (slot, rng.choice(sorted(FUNCTIONS)))
    elif kind < 0.8 and at and slot + 1 not in dict(functions):
        functions[at] = (slot + 1, name)
    elif len(functions) > 1:
        del functions[at]
    return Sample.of(code, functions)


def _moved(insn: Insn, index: int, removed: int) -> Insn:
    """Keep jump and call targets when the instruction at `removed` is gone."""
    old = index if index < removed else index + 1
    if insn.code & 7 in (5, 6) and insn.code & 0xF0 not in (0x80, 0x90) and insn.code != 0x06:
        target = old + insn.off + 1
        return insn._replace(off=(target - (target > removed)) - index - 1)
    if (insn.code == 0x85 and insn.src == 1) or (insn.code == 0x18 and insn.src == 4):
        target = old + insn.imm + 1
        return insn._replace(imm=(target - (target > removed)) - index - 1)
    return insn
