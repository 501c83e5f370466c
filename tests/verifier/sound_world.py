"""A random world for a program: live maps with contents, packets and metadata, all from one seeded generator."""

from __future__ import annotations

import dataclasses
import random
import struct
from typing import Any

from verifier_oracle import kernel_types

from pktbpf.abi.context import RANGES, UNSET
from pktbpf.engine.base import Env
from pktbpf.errors import MapError
from pktbpf.isa.extended import Insn
from pktbpf.maps.face import Map
from pktbpf.program import MapSpec, Program

CPUS = 2
BUDGET = 1_500
_KEYS = (0, 1, 2, 3, 5, 7, 0x31, 0xFFFFFFFF)
_ENDING = Program((Insn(0xB7, 0, 0, 0, 7), Insn(0x95)))
_TOUCHING = Program((Insn(0x7A, 10, 0, -512, 9), Insn(0xB7, 6, 0, 0, 3), Insn(0xB7, 0, 0, 0, 1), Insn(0x95)))
# Columns that a caller may set to any value; the rest is read from the packet or needs others to fit.
_GIVEN = ("mark", "priority", "hash", "ifindex", "ingress_ifindex", "napi_id", "tc_index", "pkt_type", "gso_segs",
          "gso_size", "timestamp", "vlan_tci", "vlan_proto", "queue_mapping", "protocol", "hatype")  # fmt: skip


def number(rng: random.Random, bits: int) -> int:
    """A number of so many bits, often near an edge."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice((0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 63, 64, (1 << bits) - 1, 1 << bits - 1)) % (1 << bits)
    return rng.getrandbits(rng.randrange(1, bits + 1))


def contents(rng: random.Random, size: int) -> bytes:
    """Random bytes, as numbers of eight bytes that are often small."""
    words = (number(rng, 64).to_bytes(8, "little") for _ in range(-(-size // 8)))
    return b"".join(words)[:size]


def _live(rng: random.Random, spec: MapSpec) -> Map:
    """The map, filled unless its first contents are what the verifier was told."""
    if getattr(spec, "frozen", False):
        made = Map.from_spec(dataclasses.replace(spec, frozen=False, initial=None))  # type: ignore[call-arg]
        for index in range(spec.max_entries):
            made.update(struct.pack("<I", index), spec.initial)  # type: ignore[attr-defined]
        made.freeze()
        return made
    made = Map.from_spec(spec, possible_cpus=CPUS)
    for _ in range(rng.randrange(0, 7)):
        try:
            _put(rng, made)
        except MapError:
            continue  # such as a key beyond an array's end, or a full queue
    return made


def _put(rng: random.Random, made: Map) -> None:
    kind, spec = made.kind, made.spec
    key: bytes | None = struct.pack("<II", rng.choice(_KEYS), rng.choice((0, 1)))[: spec.key_size]
    if kind == "USER_RINGBUF":
        made.produce(contents(rng, rng.choice((0, 1, 8, 16, 64))), discard=rng.random() < 0.2)
    elif kind == "PROG_ARRAY":
        made.update(key, rng.choice((_ENDING, _TOUCHING)))
    elif made.outer and spec.inner is not None:
        made.update(key, _live(rng, spec.inner))
    elif kind in ("QUEUE", "STACK", "BLOOM_FILTER"):
        made.push(contents(rng, spec.value_size))
    elif kind == "LPM_TRIE":
        made.update(struct.pack("<II", rng.randrange(33), number(rng, 32)), contents(rng, spec.value_size))
    elif spec.value_size:
        made.update(key, [contents(rng, spec.value_size) for _ in range(CPUS)] if made.percpu
                    else contents(rng, spec.value_size))  # fmt: skip


class World:
    """Live maps for the maps that a program names, and which of them a definition may stand for."""

    def __init__(self, rng: random.Random, program: Program):
        self.rng = rng
        made: dict[int, Map] = {}
        for spec in program.maps.values():
            if id(spec) not in made:
                made[id(spec)] = _live(rng, spec)
        self.maps = {slot: made[id(spec)] for slot, spec in program.maps.items()}
        self.by_definition = {number: [found] for number, found in made.items()}
        for spec in program.maps.values():
            if spec.inner is not None:
                self.by_definition[id(spec.inner)] = list(made[id(spec)].targets.values())
        self.program = dataclasses.replace(program, maps=self.maps)

    def env(self, budget: int) -> Env:
        """The environment of the runs."""
        return Env(seed=self.rng.getrandbits(32), budget=budget, kernel_btf=kernel_types())

    def packet(self) -> tuple[bytes, dict[str, Any]]:
        """Bytes of a packet and metadata of it."""
        rng = self.rng
        size = rng.choice((0, 1, 14, 20, 34, 60, 64, 100, 1500, rng.randrange(300)))
        metadata: dict[str, Any] = {"cpu": rng.randrange(CPUS)}
        for name in rng.sample(_GIVEN, rng.randrange(len(_GIVEN))):
            low, high = RANGES[name]
            value = low + number(rng, max((high - low).bit_length(), 1))
            if low <= value <= high and value != UNSET:
                metadata[name] = value
        return contents(rng, size), metadata
