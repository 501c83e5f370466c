"""Our side, run more than once: what differs between the runs hangs on the clock, on chance, or on the socket.

The live kernel's time goes its own way, and its random numbers are its own. A program that asks for neither runs once,
any other in several environments, whose clocks start at different moments and go at different speeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import NAMES
from pktbpf.engine.base import Env, Skbs
from pktbpf.maps.face import Map
from pktbpf.program import MapSpec, Program

RUNS, CHANCES = 4, 64  # a verdict that hangs on one random bit shows in nearly all of 64 runs
_STEPS = (0, 1_001, 1_000_003, 1_000_000_007)  # nanoseconds from packet to packet
_START = 0x0123_4567_89AB_CDEF
_CHANCE = frozenset({"get_prandom_u32"})
_MOVING = frozenset({
    "ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns", "jiffies64", "timer_start",
    "get_socket_cookie", "get_socket_uid", "get_netns_cookie",
})  # fmt: skip
_TIMESTAMP = COLUMN["timestamp"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the environments. start: nanoseconds that its packets are later. step: and each than the one before."""

    env: Env
    start: int = 0
    step: int = 0

    def skbs(self, skbs: Skbs, before: int) -> Skbs:
        """The packets at this variant's times; `before` packets have gone by."""
        if not self.start:
            return skbs
        meta = skbs.meta.copy()
        meta[:, _TIMESTAMP] += self.start + (before + np.arange(len(meta))) * self.step
        return replace(skbs, meta=meta)


def variants(program: Program, env: Env) -> list[Variant]:
    """The environments that tell what hangs on something else than the packets; the first is `env` itself."""
    called = helpers(program)
    count = CHANCES if called & _CHANCE else RUNS if called & _MOVING else 1
    moves = bool(called & _MOVING)
    return [_variant(env, number, moves) for number in range(count)]


def _variant(env: Env, number: int, moves: bool) -> Variant:
    chance = replace(env, seed=env.seed + number)
    if not moves or not number:
        return Variant(chance)
    turn = number % RUNS
    other = replace(
        chance, socket_cookie=env.socket_cookie + number, socket_uid=env.socket_uid + number,
        netns_cookie=env.netns_cookie + number,
    )  # fmt: skip
    return Variant(other, turn * _START, _STEPS[turn])


def helpers(program: Program) -> frozenset[str]:
    """Names of the helpers that the program and all that it can reach through program arrays call."""
    calls = (insn.imm for one in _programs(program) for insn in one.insns if insn.code == 0x85 and not insn.src)
    return frozenset(NAMES[number] for number in calls if 0 < number < len(NAMES))


def _programs(program: Program) -> Iterator[Program]:
    pending: list[Any] = [program]
    seen: list[Any] = []
    while pending:
        one = pending.pop()
        one = getattr(one, "program", one)
        if isinstance(one, MapSpec | Map):
            pending += _inside(one)
        elif not any(one is known for known in seen):
            seen.append(one)
            yield one
            pending += one.maps.values()


def _inside(one: Any) -> Sequence[Any]:
    """Programs of a live program array, or of the definition of one."""
    return list(one.programs().values() if isinstance(one, Map) else getattr(one, "slots", {}).values())
