"""The reference engine: plain Python, slow, readable; the oracle of tests and the base of traces.

A program that has a classic source runs on the classic machine (so the translator is judged too), any other one on the
extended machine. Random numbers are those of the interpreter for the same seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pktbpf.engine import reference_classic, reference_extended
from pktbpf.engine.base import Env, Fault, Outcome, Skbs
from pktbpf.engine.reference_packet import Faulted, Packet
from pktbpf.program import INTERNAL_NAMES, Program, Verified

U64 = (1 << 64) - 1
PRANDOM, PROCESSOR = 7, 8


@dataclass(slots=True)
class Random:
    """xorshift64* (Vigna 2016), 32 bits at a time."""

    state: int

    @classmethod
    def seeded(cls, seed: int) -> Random:
        """The same start as the interpreter's."""
        return cls((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & U64 or 1)

    def __call__(self) -> int:
        value = self.state
        value ^= value >> 12
        value ^= value << 25 & U64
        value ^= value >> 27
        self.state = value
        return (value * 0x2545F4914F6CDD1D & U64) >> 32


@dataclass(slots=True)
class Referenced:
    """A program ready for the plain machines."""

    program: Program
    env: Env
    random: Random
    needs_meta: bool = True

    def run(self, skbs: Skbs) -> Outcome:
        """Run over all packets, in order."""
        count = len(skbs)
        outcome = Outcome(np.zeros(count, dtype=np.uint32), np.zeros(count, dtype=np.uint8))
        for number in range(count):
            if not skbs.delivered[number]:
                outcome.fault[number] = Fault.UNDELIVERED
                continue
            try:
                outcome.verdict[number] = self.one(Packet.of(skbs, number))
            except Faulted as stop:
                outcome.fault[number] = stop.fault
        return outcome

    def one(self, packet: Packet) -> int:
        """Verdict for one packet. Raises Faulted."""
        if self.program.classic is not None:
            return reference_classic.Machine(packet, self.random).run(self.program.classic.insns)
        return self.machine(packet).run(self.program.insns)

    def machine(self, packet: Packet) -> reference_extended.Machine:
        """A fresh extended machine for a packet."""

        def helper(number: int, args: list[int]) -> int:
            if number == PRANDOM:
                return self.random()
            if number == PROCESSOR:
                return packet.column("cpu")
            if number in INTERNAL_NAMES:
                return machine.internal(number, args)
            raise Faulted(Fault.CALL)

        machine = reference_extended.Machine(packet, helper, self.env.budget)
        return machine


class ReferenceEngine:
    """Plain Python; see the module."""

    name = "reference"

    def prepare(self, verified: Verified, env: Env) -> Referenced:
        """Keep the program; nothing to compile."""
        return Referenced(verified.program, env, Random.seeded(env.seed))


ENGINE = ReferenceEngine()
