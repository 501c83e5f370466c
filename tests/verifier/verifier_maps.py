"""Maps with BTF types, first contents or kinds that helpers refuse: verifier_oracle.MAPS ends with them."""

from __future__ import annotations

import ctypes
import struct

from verifier_types import TABLE, VALUES

from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_data import DataType
from pktbpf.objfile.btf_fields import value_fields
from pktbpf.objfile.values import MapDefinition
from pktbpf.program import MapSpec

TYPES = Btf.parse(TABLE)
_KEY = next(t.id for t in TYPES.types() if t.name == "int")
BPF_F_RDONLY_PROG = 1 << 7
CONSTANTS = struct.pack("<QIHBbq4s4s", 0x1122334455667788, 7, 0xFFFE, 3, -2, -5, b"%d\0\0", b"abc\0")


def typed(name: str, kind: str, value: str, entries: int = 2) -> MapDefinition:
    """A map whose values have one of the types of verifier_types."""
    number = VALUES[value]
    definition = DataType.of(TYPES, number)
    return MapDefinition(
        kind, 4, definition.size, entries, 0, name, key_type_id=_KEY, value_type_id=number, value_type=definition,
        fields=value_fields(TYPES, number),
    )  # fmt: skip


def constant(name: str, contents: bytes, entries: int = 1) -> MapDefinition:
    """A frozen array that programs only read."""
    return MapDefinition("ARRAY", 4, len(contents), entries, BPF_F_RDONLY_PROG, name, initial=contents, frozen=True)


TYPED: tuple[MapSpec, ...] = (
    typed("timed", "ARRAY", "timed"), typed("timedh", "HASH", "timed"), typed("timedl", "LRU_HASH", "timed_first"),
    typed("timed1", "ARRAY", "timed", 1), typed("locked", "ARRAY", "locked"), typed("strongly", "HASH", "strongly"),
    typed("working", "ARRAY", "working"), typed("kernel", "ARRAY", "kernel"), typed("kernelh", "HASH", "kernel"),
    typed("kernelp", "PERCPU_ARRAY", "kernel"), typed("kernelph", "PERCPU_HASH", "kernel"),
    typed("kernel1", "ARRAY", "kernel", 1), typed("mixed", "HASH", "mixed"), typed("own", "ARRAY", "own"),
    typed("ownh", "LRU_HASH", "own"), typed("many", "ARRAY", "many"), typed("plain", "ARRAY", "plain"),
    constant("consts", CONSTANTS), constant("const4", CONSTANTS, 4), constant("zeros", bytes(8)),
    MapSpec("ARRAY_OF_MAPS", 4, 4, 2, name="timers", inner=typed("inner", "ARRAY", "timed")),
    MapSpec("HASH_OF_MAPS", 4, 4, 2, name="hashes", inner=MapSpec("HASH", 8, 16, 4)),
    MapSpec("ARRAY_OF_MAPS", 4, 4, 2, name="kptrs", inner=typed("inner", "HASH", "kernel")),
    MapSpec("STACK_TRACE", 4, 8, 4, name="traces"), MapSpec("CGROUP_ARRAY", 4, 4, 2, name="cgroups"),
    MapSpec("CGROUP_STORAGE", 8, 8, 0, name="cgstore"), MapSpec("LRU_PERCPU_HASH", 4, 16, 4, name="lrup"),
    MapSpec("REUSEPORT_SOCKARRAY", 4, 8, 2, name="reuse"), MapSpec("DEVMAP", 4, 4, 2, name="devs"),
    MapSpec("CPUMAP", 4, 4, 2, name="cpus"), MapSpec("XSKMAP", 4, 4, 2, name="xsks"),
    MapSpec("SOCKHASH", 4, 4, 2, name="sockh"),
)  # fmt: skip


def load_table(bpf: object) -> int:
    """File descriptor of the table of types, or minus errno; bpf: command, attr -> result."""
    raw = ctypes.create_string_buffer(TABLE, len(TABLE))
    return bpf(18, struct.pack("<QQI", ctypes.addressof(raw), 0, len(TABLE)))  # type: ignore[operator]
