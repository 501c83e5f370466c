"""What BPF_MAP_CREATE refuses, kind by kind, in the kernel's order and with its errno (map_create and map_alloc_check).

`check` takes the attributes as they are given; errors are MapError with one line that says which attribute is wrong.
Limits are those of x86-64 with 4 KiB pages: KMALLOC_MAX_SIZE, PCPU_MIN_UNIT_SIZE, kernel.perf_event_max_stack.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.errors import MapError
from pktbpf.maps import layout
from pktbpf.maps.layout import round_up
from pktbpf.program import MapSpec

KMALLOC_MAX = 4 << 20
PERCPU_VALUE_MAX = 32 << 10
MAX_STACK = 127
MAX_BUCKETS = 0xFFFFFFFF // 16
ARRAY_KINDS = frozenset({"ARRAY", "PERCPU_ARRAY", "PROG_ARRAY", "PERF_EVENT_ARRAY", "CGROUP_ARRAY", "ARRAY_OF_MAPS"})
HASH_KINDS = frozenset({"HASH", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH", "HASH_OF_MAPS"})
FD_ARRAYS = frozenset({"PROG_ARRAY", "PERF_EVENT_ARRAY", "CGROUP_ARRAY", "ARRAY_OF_MAPS"})
PERCPU_KINDS = frozenset({"PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH"})
OUTER_KINDS = frozenset({"ARRAY_OF_MAPS", "HASH_OF_MAPS"})
REFERENCE_KINDS = FD_ARRAYS | OUTER_KINDS

_NODE = layout.BPF_F_NUMA_NODE
_ACCESS = layout.BPF_F_RDONLY | layout.BPF_F_WRONLY | layout.BPF_F_RDONLY_PROG | layout.BPF_F_WRONLY_PROG
_ARRAY_FLAGS = _NODE | _ACCESS | layout.BPF_F_MMAPABLE | layout.BPF_F_PRESERVE_ELEMS | layout.BPF_F_INNER_MAP
_HASH_FLAGS = (
    layout.BPF_F_NO_PREALLOC | layout.BPF_F_NO_COMMON_LRU | _NODE | _ACCESS | layout.BPF_F_ZERO_SEED
)  # fmt: skip
_PROG_ACCESS = layout.BPF_F_RDONLY_PROG | layout.BPF_F_WRONLY_PROG
_FILE_ACCESS = layout.BPF_F_RDONLY | layout.BPF_F_WRONLY
_NAME = re.compile(r"[A-Za-z0-9_.]*")

# Kinds that hold things of a running system, and what a replay lacks for them.
MEANINGLESS = {
    "DEVMAP": "network devices to redirect to", "DEVMAP_HASH": "network devices to redirect to",
    "SOCKMAP": "sockets", "SOCKHASH": "sockets", "REUSEPORT_SOCKARRAY": "sockets", "SK_STORAGE": "sockets",
    "XSKMAP": "AF_XDP sockets", "CPUMAP": "processors to redirect to", "CGROUP_STORAGE": "control groups",
    "PERCPU_CGROUP_STORAGE": "control groups", "CGRP_STORAGE": "control groups", "INODE_STORAGE": "inodes",
    "TASK_STORAGE": "tasks", "STRUCT_OPS": "kernel structures to implement", "ARENA": "memory shared with a process",
}  # fmt: skip


def refuse(number: int, reason: str) -> MapError:
    """The error of a creation that fails."""
    return MapError(number, f"map creation: {reason}")


def check(spec: MapSpec, privilege: str = "root") -> None:
    """Raise MapError where the kernel refuses the attributes. The inner map is checked by the caller.

    privilege: root, cap_bpf, or none (unprivileged BPF enabled, no capability).
    """
    kind = BY_NAME.get(spec.kind)
    for value, what in ((spec.key_size, "key size"), (spec.value_size, "value size"),
                        (spec.max_entries, "max_entries"), (spec.flags, "flags")):  # fmt: skip
        if not 0 <= value <= 0xFFFFFFFF:
            raise refuse(errno.EINVAL, f"{what} {value} is not a 32-bit number")
    if spec.extra and spec.kind not in ("BLOOM_FILTER", "ARENA"):
        raise refuse(errno.EINVAL, f"{spec.kind} takes no map_extra")
    if spec.flags & _FILE_ACCESS == _FILE_ACCESS:
        raise refuse(errno.EINVAL, "BPF_F_RDONLY and BPF_F_WRONLY exclude each other")
    if kind is None or not kind.number:
        raise refuse(errno.EINVAL, f"no map type {spec.kind}")
    if spec.kind in MEANINGLESS:
        raise refuse(errno.EINVAL, f"{spec.kind} needs {MEANINGLESS[spec.kind]}, which there are none of in a replay")
    early, late = _CHECKS[spec.kind]
    early(spec)
    if early is _hash and spec.flags & layout.BPF_F_ZERO_SEED and privilege != "root":
        raise refuse(errno.EPERM, "BPF_F_ZERO_SEED needs CAP_SYS_ADMIN")
    if kind.privilege != "none" and privilege == "none":
        raise refuse(errno.EPERM, f"{spec.kind} needs CAP_BPF")
    late(spec)


def check_name(name: str) -> None:
    """BPF_OBJ_NAME_LEN is 16 with the final NUL; letters, digits, `_` and `.` only. Looked at after everything else."""
    if len(name.encode()) > 15 or not _NAME.fullmatch(name):
        raise refuse(errno.EINVAL, f"name {name!r} is not up to 15 letters, digits, _ or .")


def _flags(spec: MapSpec, allowed: int) -> None:
    if spec.flags & ~allowed:
        raise refuse(errno.EINVAL, f"{spec.kind} does not know flags {spec.flags & ~allowed:#x}")
    if spec.flags & _PROG_ACCESS == _PROG_ACCESS:
        raise refuse(errno.EINVAL, "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other")


def _need(spec: MapSpec, **limits: tuple[int, int]) -> None:
    """Attributes inside their ranges, else EINVAL."""
    for name, (low, high) in limits.items():
        value = getattr(spec, name)
        if not low <= value <= high:
            wanted = f"{low}" if low == high else f"{low} to {high}" if high < 0xFFFFFFFF else f"at least {low}"
            raise refuse(errno.EINVAL, f"{spec.kind} takes {name} {wanted}, not {value}")


_ANY, _SOME = (0, 0xFFFFFFFF), (1, 0xFFFFFFFF)


def _array(spec: MapSpec) -> None:
    if spec.kind in FD_ARRAYS:
        _need(spec, value_size=(4, 4))
        if spec.flags & _PROG_ACCESS:
            raise refuse(errno.EINVAL, f"{spec.kind} cannot be read-only or write-only for programs")
    _need(spec, max_entries=_SOME, key_size=(4, 4), value_size=_SOME)
    _flags(spec, _ARRAY_FLAGS)
    if spec.kind == "PERCPU_ARRAY" and spec.flags & _NODE:
        raise refuse(errno.EINVAL, "a per-CPU map has no NUMA node")
    if spec.kind != "ARRAY" and spec.flags & (layout.BPF_F_MMAPABLE | layout.BPF_F_INNER_MAP):
        raise refuse(errno.EINVAL, "BPF_F_MMAPABLE and BPF_F_INNER_MAP are for ARRAY only")
    if spec.kind != "PERF_EVENT_ARRAY" and spec.flags & layout.BPF_F_PRESERVE_ELEMS:
        raise refuse(errno.EINVAL, "BPF_F_PRESERVE_ELEMS is for PERF_EVENT_ARRAY only")
    if spec.value_size > 0x7FFFFFFF:
        raise refuse(errno.E2BIG, f"value size {spec.value_size} is over 2 GiB")
    _percpu_size(spec)


def _percpu_size(spec: MapSpec) -> None:
    if spec.kind in PERCPU_KINDS and round_up(spec.value_size) > PERCPU_VALUE_MAX:
        raise refuse(errno.E2BIG, f"value size {spec.value_size} is over {PERCPU_VALUE_MAX}, too much per processor")


def _hash(spec: MapSpec) -> None:
    lru = spec.kind in ("LRU_HASH", "LRU_PERCPU_HASH")
    if spec.kind == "HASH_OF_MAPS":
        _need(spec, value_size=(4, 4))
    _flags(spec, _HASH_FLAGS)
    own_lists = spec.flags & layout.BPF_F_NO_COMMON_LRU
    if own_lists and not lru:
        raise refuse(errno.EINVAL, "BPF_F_NO_COMMON_LRU is for LRU tables only")
    if lru and spec.flags & layout.BPF_F_NO_PREALLOC:
        raise refuse(layout.ENOTSUPP, "an LRU table is always preallocated")
    if spec.flags & _NODE and (spec.kind in PERCPU_KINDS or own_lists):
        raise refuse(errno.EINVAL, "a per-CPU map has no NUMA node")
    _need(spec, max_entries=_SOME, key_size=_SOME, value_size=_SOME)
    if spec.key_size + spec.value_size >= KMALLOC_MAX - 48:
        raise refuse(errno.E2BIG, f"key and value of {spec.key_size + spec.value_size} bytes are over 4 MiB")
    _percpu_size(spec)


def _hash_late(spec: MapSpec) -> None:
    if spec.max_entries > 1 << 31 or 1 << (spec.max_entries - 1).bit_length() > MAX_BUCKETS:
        raise refuse(errno.E2BIG, f"{spec.max_entries} entries are too many for a hash table")


def _trie(spec: MapSpec) -> None:
    if not spec.flags & layout.BPF_F_NO_PREALLOC:
        raise refuse(errno.EINVAL, "LPM_TRIE must be created with BPF_F_NO_PREALLOC")
    _flags(spec, layout.BPF_F_NO_PREALLOC | _NODE | _ACCESS)
    _need(spec, max_entries=_SOME, key_size=(5, 260), value_size=(1, KMALLOC_MAX - 256 - 24))


def _queue(spec: MapSpec) -> None:
    _need(spec, max_entries=_SOME, key_size=(0, 0), value_size=_SOME)
    _flags(spec, _NODE | _ACCESS)
    _value_of_kmalloc(spec)


def _value_of_kmalloc(spec: MapSpec) -> None:
    if spec.value_size > KMALLOC_MAX:
        raise refuse(errno.E2BIG, f"value size {spec.value_size} is over 4 MiB")


def _bloom(spec: MapSpec) -> None:
    _need(spec, key_size=(0, 0), value_size=_SOME, max_entries=_SOME)
    _flags(spec, _NODE | layout.BPF_F_ZERO_SEED | _ACCESS)
    if spec.extra & ~0xF:
        raise refuse(errno.EINVAL, f"map_extra {spec.extra:#x} asks for more than 15 hash functions")


def _ring(spec: MapSpec) -> None:
    if spec.flags & ~_NODE:
        raise refuse(errno.EINVAL, f"{spec.kind} does not know flags {spec.flags & ~_NODE:#x}")
    _need(spec, key_size=(0, 0), value_size=(0, 0))
    size = spec.max_entries
    if not size or size & (size - 1) or size % 4096:
        raise refuse(errno.EINVAL, f"{spec.kind} takes a power of two of whole pages as max_entries, not {size}")


def _stack_trace(spec: MapSpec) -> None:
    if spec.flags & ~(_NODE | _FILE_ACCESS | layout.BPF_F_STACK_BUILD_ID):
        raise refuse(errno.EINVAL, f"STACK_TRACE does not know flags {spec.flags:#x}")
    _need(spec, max_entries=_SOME, key_size=(4, 4), value_size=(8, 0xFFFFFFFF))
    unit = 32 if spec.flags & layout.BPF_F_STACK_BUILD_ID else 8
    if spec.value_size % unit or spec.value_size % 8 or spec.value_size // unit > MAX_STACK:
        raise refuse(errno.EINVAL, f"STACK_TRACE takes up to {MAX_STACK} frames of {unit} bytes as value")
    if spec.max_entries > 1 << 31:
        raise refuse(errno.E2BIG, f"{spec.max_entries} entries are too many")


def _nothing(_spec: MapSpec) -> None:
    return None


# Kind -> (checks before the privilege is looked at, checks after it).
_Check = Callable[[MapSpec], None]
_CHECKS: dict[str, tuple[_Check, _Check]] = {
    **dict.fromkeys(ARRAY_KINDS, (_array, _nothing)),
    **dict.fromkeys(HASH_KINDS, (_hash, _hash_late)),
    "LPM_TRIE": (_nothing, _trie),
    "QUEUE": (_queue, _nothing),
    "STACK": (_queue, _nothing),
    "BLOOM_FILTER": (_value_of_kmalloc, _bloom),
    "RINGBUF": (_nothing, _ring),
    "USER_RINGBUF": (_nothing, _ring),
    "STACK_TRACE": (_nothing, _stack_trace),
}
KINDS = tuple(sorted(_CHECKS))
