"""Nearly right programs of many statements and functions, everything inside everything: verifier_statements.Body.

Only the main function has loops: a loop in a callback whose helper stands outside of any can make Linux 6.18 follow a
checkpoint that it has freed, and oops.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from verifier_functions import link
from verifier_generate import Code, I, call, mov, movr
from verifier_oracle import Sample
from verifier_statements import PLAIN, Body

MOST = 6
LOOPS = ("counted", "may_goto", "iterate")
# Registers of a callback's arguments: the context it was given.
CONTEXT = {"loop": 2, "each": 4, "drain": 2}
NAMES = {"loop": "s_args1", "each": "s_args25", "drain": "s_args0", "static": "s_args3"}


class Whole:
    """A program whose functions call each other. weights: statements and how often each is chosen. budget: how many
    there may be in all."""

    def __init__(self, rng: random.Random, weights: dict[str, int], budget: int):
        self.rng = rng
        self._weights = weights
        self.budget = budget
        self.functions: list[tuple[str, Code]] = []
        self.depth = 0

    @property
    def weights(self) -> dict[str, int]:
        """Those for the function being made."""
        return {name: n for name, n in self._weights.items() if not (self.depth and name in LOOPS)}

    def callee(self, kind: str) -> int | None:
        """A function made for that, or one made before."""
        known = [number for number, (name, _) in enumerate(self.functions) if name == NAMES[kind] and number]
        full = len(self.functions) >= MOST
        if known and (full or self.rng.random() < 0.25):
            return self.rng.choice(known)
        if full or self.depth > 3:
            return None
        number = len(self.functions)
        # Until it is written it only returns: nothing here calls itself.
        self.functions.append(("", [mov(0, 0), I(0x95)]))
        self.depth += 1
        self.functions[number] = (NAMES[kind], self._function(kind).code)
        self.depth -= 1
        return number

    def _function(self, kind: str) -> Body:
        r = self.rng
        body = Body(r, self, kind, min(self.depth, 2))
        if kind == "static":
            body.code += [movr(6, 1), movr(7, 2)]
            body.holds(6, "ctx")
            body.holds(7, "stack")
            body.holds(3)
        else:
            body.code.append(movr(9, CONTEXT[kind]))
            body.holds(9, "stack")
        if kind == "loop":
            body.holds(1)
        elif kind == "each":
            body.holds(3, "value")
        elif r.random() < 0.5 and kind == "drain":
            body.code += [mov(2, 0), mov(3, 8), call(203), I(0x15, 0, 0, 1, 0), I(0x79, 7, 0, 0), mov(7, 0)]
            body.gone()
            body.holds(7)
        body.run(r.randrange(0, 4))
        if kind in CONTEXT and body.pointers.get(9) == "stack" and r.random() < 0.5:
            body.code += r.choice((
                [I(0x79, 1, 9, 0), I(0x07, 1, 0, 0, 1), I(0x7B, 9, 1, 0)], [I(0x7A, 9, 0, 0, body.imm())],
                [I(0x79, 1, 9, 8), I(0x25, 1, 0, 1, 5), I(0x7B, 9, 1, 8)],
            ))  # fmt: skip
        body.finish()
        return body

    def sample(self, count: int, filled: bool) -> Sample:
        """The whole program. filled: the main function writes its stack first."""
        main = Body(self.rng, self, "main")
        self.functions.append(("main", main.code))
        main.code.append(movr(6, 1))
        main.holds(6, "ctx")
        if filled:
            main.code += [I(0x7A, 10, 0, -off, main.imm()) for off in range(8, 48, 8)]
            main.written |= set(range(-40, 0, 8))
        main.run(count)
        main.finish()
        if len(self.functions) == 1:
            return Sample.of(main.code)
        return link([(name or "s_args0", code) for name, code in self.functions])


def _maker(weights: dict[str, int], most: int, budget: int, filled: float = 0.2) -> Callable[[random.Random], Sample]:
    chosen = PLAIN | weights

    def make(rng: random.Random) -> Sample:
        whole = Whole(rng, chosen, budget)
        return whole.sample(rng.randrange(4, most), rng.random() < filled)

    return make


FEATURES: dict[str, Callable[[random.Random], Sample]] = {
    "rounds": _maker({"back": 12, "function": 5, "iterate": 6, "counted": 3, "may_goto": 2, "depart": 2}, 8, 22),
    "holding": _maker({"region": 9, "record": 8, "dynptr": 8, "iterate": 4, "function": 6, "back": 4}, 9, 25),
}  # fmt: skip
# Without functions and loops: for everybody.
STRAIGHT = {"whole": _maker({"condition": 20, "copy": 14}, 18, 45, 0.9)}
