"""The reference engine: plain Python, slow, readable; the oracle of tests and the base of traces.

A program that has a classic source runs on the classic machine (so the translator is judged too), any other one on the
extended machine. Random numbers are those of the interpreter for the same seed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import numpy as np

from pktbpf.abi.limits import REG_FP, STACK_SIZE
from pktbpf.engine import reference_classic, reference_extended
from pktbpf.engine.base import Env, Fault, Outcome, Skbs
from pktbpf.engine.control_helpers import ALL_FRAMES
from pktbpf.engine.reference_packet import Faulted, Packet
from pktbpf.engine.reference_world import MAP_POINTER, SCRATCH, Answer, Timer, World
from pktbpf.engine.trace import TraceRecord
from pktbpf.maps import layout
from pktbpf.maps.elements import read_key
from pktbpf.program import INTERNAL_NAMES, Program, Verified

U64 = (1 << 64) - 1


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
    probes: frozenset[int] = frozenset()
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.env, self.random)
        self.world.probes[id(self.program)] = self.probes

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
        """Verdict for one packet, timers that have expired by then before it. Raises Faulted."""
        if self.program.classic is not None:
            return reference_classic.Machine(packet, self.random).run(self.program.classic.insns)
        for timer, (program, slot) in self.world.expired(packet.column("timestamp")):
            self._fire(packet, timer, program, slot)
        return self.machine(packet).run(self.program.insns)

    def _fire(self, packet: Packet, timer: Timer, program: Program, slot: int) -> None:
        machine = self.machine(packet)
        machine.program, machine.pc, machine.now = program, slot, timer.expiry or 0
        found = self.world.maps[timer.pointer >> 32]
        stride = int(found.row[layout.STRIDE])
        index = (timer.pointer & 0xFFFFFFFF) // stride
        key = index.to_bytes(4, "little") if found.kind == "ARRAY" else read_key(found, index + 1)
        machine.scratch[: len(key)] = key
        value = found.number << 32 | index * stride
        machine.regs[1:4] = [MAP_POINTER | found.number << 32, SCRATCH << 32, value]
        machine.regs[REG_FP] = (reference_extended.STACK << 32) + STACK_SIZE
        # A callback's answer means nothing, and its fault is no packet's.
        with contextlib.suppress(reference_extended.Exited, Faulted):
            for _ in machine.go(program.insns):
                pass

    def machine(self, packet: Packet) -> reference_extended.Machine:
        """A fresh extended machine for a packet."""

        def helper(number: int, args: list[int]) -> Answer:
            if number in INTERNAL_NAMES:
                return machine.internal(number, args)
            return self.world.call(machine, number)

        machine = reference_extended.Machine(packet, helper, self.env.budget, program=self.program, world=self.world)
        self.world.learn(self.program)
        machine.now, machine.cpu = packet.column("timestamp"), packet.column("cpu")
        keys = max((found.key_size for found in self.world.maps.values()), default=0)
        machine.scratch = bytearray(max(STACK_SIZE, layout.round_up(keys)) * ALL_FRAMES)
        return machine

    def trace_records(self) -> list[TraceRecord]:
        """What bpf_trace_printk and bpf_trace_vprintk wrote since the last call."""
        found, self.world.traces = self.world.traces, []
        return found


class ReferenceEngine:
    """Plain Python; see the module."""

    name = "reference"

    def prepare(self, verified: Verified, env: Env) -> Referenced:
        """Keep the program; nothing to compile."""
        return Referenced(verified.program, env, Random.seeded(env.seed), probes=verified.probes)


ENGINE = ReferenceEngine()
