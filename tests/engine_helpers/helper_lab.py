"""One program, two machines: ours here, the live kernel in helper_live, with the same maps, packets and order of runs.

Each side loads programs (builder steps) and maps; `run` sends packets through the first, `once` gives the full return
value, `contents` what the maps hold afterwards. Values with locks or timers get the BTF they need.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pktbpf.asm.builder import build
from pktbpf.engine import groups
from pktbpf.engine.base import Env
from pktbpf.filter import Filter
from pktbpf.isa.extended import Insn
from pktbpf.kernel.affinity import one_processor
from pktbpf.kernel.maps import possible_cpus
from pktbpf.maps.face import Map
from pktbpf.objfile.btf_info import FunctionInfo
from pktbpf.objfile.values import ProgramBtf
from pktbpf.program import MapSpec, Program, trust

LOCK_VALUE, TIMER_VALUE = 16, 24  # bytes of the values that BTF describes
SO_NETNS_COOKIE = 71
ETHERNET = bytes(6) + bytes.fromhex("020000000001") + b"\x88\xb5"
# What BPF_PROG_TEST_RUN makes of a frame that begins so: a packet of the loopback device, without a socket.
FRAME_METADATA = {"protocol": 0x88B5, "ifindex": 1, "pkt_type": 0}
# Values that a caller may give it, by their places in struct __sk_buff.
GIVEN = {"mark": 0xDEADBEEF, "ingress_ifindex": 0x77665, "priority": 0x01020304, "gso_segs": 0x1122, "gso_size": 0x3344}
KEYED = ("ARRAY", "HASH", "PERCPU_ARRAY", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE")


@dataclass
class Spec:
    """A map of a lab. entries: (key, value) set before the first run. special: "lock", "timer" or "kptr" in the value
    (at 8). inner: name of the map that every slot in `slots` is like. programs: index -> name of another program.
    samples: (data, discard) that user space puts into a user ring buffer before the first run."""

    kind: str
    key_size: int = 4
    value_size: int = 8
    max_entries: int = 4
    flags: int = 0
    entries: Sequence[tuple[bytes | None, bytes]] = ()
    special: str = ""
    inner: str = ""
    slots: Mapping[int, str] = field(default_factory=dict)
    programs: Mapping[int, str] = field(default_factory=dict)
    samples: Sequence[tuple[bytes, bool]] = ()
    frozen: bool = False


def _strings(*names: str) -> tuple[bytes, dict[str, int]]:
    data, places = b"\0", {}
    for name in names:
        places[name] = len(data)
        data += name.encode() + b"\0"
    return data, places


def btf() -> bytes:
    """Types: 1 int, 2 int(), 3 static function f, 4 u64, 5 bpf_spin_lock, 6 the value with a lock, 7 bpf_timer, 8 the
    value with a timer, 9 to 11 a referenced pointer to a task_struct, 12 the value with that."""
    text, at = _strings("int", "f", "u64", "bpf_spin_lock", "val", "locked", "a", "lock", "bpf_timer", "timed", "timer",
                        "task_struct", "kptr", "owned")  # fmt: skip

    def kind(name: str, number: int, count: int, size: int) -> bytes:
        return struct.pack("<III", at.get(name, 0), number << 24 | count, size)

    def member(name: str, of: int, offset: int) -> bytes:
        return struct.pack("<III", at[name], of, offset * 8)

    types = kind("int", 1, 0, 4) + struct.pack("<I", 1 << 24 | 32)
    types += kind("", 13, 0, 1) + kind("f", 12, 0, 2)
    types += kind("u64", 1, 0, 8) + struct.pack("<I", 64)
    types += kind("bpf_spin_lock", 4, 1, 4) + member("val", 1, 0)
    types += kind("locked", 4, 3, LOCK_VALUE) + member("a", 4, 0) + member("lock", 5, 8) + member("val", 1, 12)
    types += kind("bpf_timer", 4, 2, 16) + member("a", 4, 0) + member("val", 4, 8)
    types += kind("timed", 4, 2, TIMER_VALUE) + member("a", 4, 0) + member("timer", 7, 8)
    types += kind("task_struct", 4, 0, 8) + kind("kptr", 18, 0, 9) + kind("", 2, 0, 10)
    types += kind("owned", 4, 2, 16) + member("a", 4, 0) + member("val", 11, 8)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text))
    return head + types + text


TYPES = btf()
STATIC = FunctionInfo(3, "f", "static", True, ())  # what all functions of a program are


def functions(insns: Sequence[Insn]) -> list[int]:
    """First slots of the main program and of all subprograms and callbacks."""
    starts = {0}
    for slot, insn in enumerate(insns):
        if (insn.code == 0x85 and insn.src == 1) or (insn.code == 0x18 and insn.src == 4):
            starts.add(slot + 1 + insn.imm)
    return sorted(starts)


def environment(cpu: int) -> Env:
    """What the helpers answer on this machine: root's sockets in the namespace that we are in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        cookie = struct.unpack("<Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0]
    return Env(cpu=cpu, budget=1 << 27, socket_uid=0, netns_cookie=cookie)


class Ours:
    """This project's side. engine: "interpreter" or "reference"."""

    def __init__(
        self, programs: Mapping[str, Program], specs: Mapping[str, Spec], cpu: int = 0, engine: str = "interpreter",
        cpus: int = 1, every_group: bool = True, env: Env | None = None,
    ):  # fmt: skip
        self.specs, self.maps = specs, {}
        for name, spec in specs.items():
            self.maps[name] = self._make(name, spec, cpus)
        self.programs = bound = {name: self._bind(program) for name, program in programs.items()}
        for name, spec in specs.items():
            for index, target in spec.slots.items():
                self.maps[name].update(struct.pack("<I", index), self.maps[target])
            for index, target in spec.programs.items():
                self.maps[name].update(struct.pack("<I", index), trust(bound[target]))
        self.filter = Filter(trust(bound["main"]), attach="unix", engine=engine, env=env or environment(cpu))
        if engine == "interpreter" and every_group:
            # One variant of the loop for all programs: each set of groups is compiled for itself.
            kernel = any(program.kfuncs for program in bound.values())
            self.filter.runner.groups = groups.Groups(False, True, True, True, True, True, kernel)

    def _make(self, name: str, spec: Spec, cpus: int) -> Map:
        inner = self.maps[spec.inner] if spec.inner else None
        fields = {"lock": (("spin_lock", 8, 4),), "timer": (("timer", 8, 16),), "kptr": (("kptr", 8, 8),)}
        made = Map(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, name, inner=inner,
            possible_cpus=cpus, fields=fields.get(spec.special, ()),
        )  # fmt: skip
        for key, value in spec.entries:
            made.update(key, value)
        for data, discard in spec.samples:
            made.produce(data, discard=discard)
        if spec.frozen:
            made.freeze()
        return made

    def _bind(self, program: Program) -> Program:
        maps = {slot: self.maps[spec.name] for slot, spec in program.maps.items()}
        types = ProgramBtf(TYPES, dict.fromkeys(functions(program.insns), STATIC))
        return Program(program.insns, maps=maps, kfuncs=program.kfuncs, btf=types)

    def run(self, packets: Iterable[bytes]) -> list[int]:
        """Kept bytes of each packet on a unix socket, -1 for a dropped one."""
        given = list(packets)
        kept = self.filter.kept_many(given).tolist()
        return [k or -1 for k in kept]

    def once(self, payload: bytes) -> tuple[int, int]:
        """(u32 return value, fault) for a frame with this payload, as BPF_PROG_TEST_RUN sees it."""
        outcome = self.filter.outcome(
            ETHERNET + payload, start=14, mac_offset=-14, network_offset=0, **FRAME_METADATA, **GIVEN
        )
        return int(outcome.verdict[0]), int(outcome.fault[0])

    def contents(self) -> dict[str, Any]:
        """What every map holds."""
        return {name: self._contents(self.maps[name], spec) for name, spec in self.specs.items()}

    def _contents(self, found: Map, spec: Spec) -> Any:
        if spec.kind in KEYED:
            return sorted(found.raw_items())
        if spec.kind in ("QUEUE", "STACK"):
            return drained(found)
        if spec.kind == "PERF_EVENT_ARRAY":
            return [(event.slot, event.data) for event in found.events()]
        return found.records() if spec.kind == "RINGBUF" else None

    def close(self) -> None:
        """Nothing is left open."""


def drained(found: Any) -> list[bytes]:
    """What a queue or stack gives until it is empty."""
    out = []
    while True:
        try:
            out.append(found.lookup_and_delete())
        except OSError:
            return out


def assemble(steps: Iterable[Any], specs: Mapping[str, Spec]) -> Program:
    """A program whose map references carry names only."""
    maps = {name: MapSpec(s.kind, s.key_size, s.value_size, s.max_entries, name=name) for name, s in specs.items()}
    return build(steps, maps=maps)


__all__ = ["Ours", "Spec", "assemble", "one_processor", "possible_cpus"]
