"""bpf(2) as a Python module, off the kernel: commands as functions, descriptors as handles, errors with its errno.

    fd = bpf.map_create("HASH", 4, 8, 1024, name="flows")
    bpf.map_update_elem(fd, b"\\1\\0\\0\\0", bytes(8), bpf.BPF_NOEXIST)
    prog = bpf.prog_load("SOCKET_FILTER", insns, "GPL")        # ld_imm64 with src 1 names maps by descriptor
    bpf.obj_get_info(prog).tag

Keys and values are bytes of the exact size, None for a null pointer; descriptors in values are 4 bytes or an int. A map
or program lives as long as a descriptor, a program or a map refers to it.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from pktbpf.abi.map_kinds import BY_NAME, BY_NUMBER
from pktbpf.errors import MapError, ProgramRefused
from pktbpf.isa import extended
from pktbpf.isa.extended import Insn
from pktbpf.maps import attributes, layout
from pktbpf.maps.attributes import REFERENCE_KINDS
from pktbpf.maps.batch import Batch
from pktbpf.maps.face import Map
from pktbpf.maps.references import program_id
from pktbpf.program import Program, Verified

BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 0, 1, 2, 4
SOCKET_FILTER = 1
BPF_LOG_FIXED = 8
_LOG_MASK = 15
_LOG_MAX = 0xFFFFFFFF >> 2
_PROG_FLAGS = 0xFF  # strict, any alignment, test flags, sleepable, XDP frags, device-bound
_PSEUDO_MAPS = (1, 2)
_PROG_TYPES = {"UNSPEC": 0, "SOCKET_FILTER": SOCKET_FILTER}


class Fd(int):
    """A descriptor: an int that can be closed and used in a with statement."""

    def close(self) -> None:
        """Give the number back. EBADF when it is closed already."""
        close(self)

    def __enter__(self) -> Fd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if int(self) in _open:
            close(self)


class LoadRefused(ProgramRefused, OSError):  # type: ignore[misc]  # errno: never None here, as OSError allows
    """BPF_PROG_LOAD said no. `errno` and `log` as the kernel gives them; the log is cut to the size asked for."""

    def __init__(self, number: int, insn: int | None, reason: str, *, hint: str = "", log: str = ""):
        super().__init__(number, insn, reason, hint=hint, log=log)
        self.errno = number  # OSError's own initialisation has cleared it


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info. type: BPF_MAP_TYPE_ number."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    extra: int
    frozen: bool


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """struct bpf_prog_info. tag: 16 hex digits, equal to the live kernel's. insns: the program as it was loaded."""

    type: int
    id: int
    tag: str
    name: str
    gpl_compatible: bool
    map_ids: tuple[int, ...]
    insns: bytes


@dataclass(frozen=True)
class _Loaded:
    verified: Verified
    log: str


_open: dict[int, Map | _Loaded] = {}


def _new_fd(target: Map | _Loaded) -> Fd:
    number = next(n for n in itertools.count(3) if n not in _open)
    _open[number] = target
    return Fd(number)


def _error(number: int, what: str) -> MapError:
    text = "Operation not supported" if number == layout.ENOTSUPP else os.strerror(number)
    return MapError(number, f"{what}: {text}")


def _map(fd: int, what: str) -> Map:
    """The map of a descriptor: EBADF for one that is not open, EINVAL for a program's."""
    target = _open.get(int(fd))
    if target is None:
        raise _error(errno.EBADF, f"{what}: descriptor {int(fd)}")
    if not isinstance(target, Map):
        raise _error(errno.EINVAL, f"{what}: descriptor {int(fd)} is a program")
    return target


def close(fd: int) -> None:
    """Forget a descriptor; what it named lives on while anything else refers to it."""
    if _open.pop(int(fd), None) is None:
        raise _error(errno.EBADF, f"close: descriptor {int(fd)}")


def dup(fd: int) -> Fd:
    """A second descriptor for the same map or program."""
    if int(fd) not in _open:
        raise _error(errno.EBADF, f"dup: descriptor {int(fd)}")
    return _new_fd(_open[int(fd)])


def get_map(fd: int) -> Map:
    """The pktbpf.Map behind a descriptor."""
    return _map(fd, "map")


def get_program(fd: int) -> Verified:
    """The verified program behind a descriptor, as pktbpf.Filter takes it."""
    target = _open.get(int(fd))
    if not isinstance(target, _Loaded):
        raise _error(errno.EINVAL if target else errno.EBADF, f"descriptor {int(fd)} is no program")
    return target.verified


def map_fd(m: Map) -> Fd:
    """A descriptor for a map that was made elsewhere."""
    return _new_fd(m)


def references(fd: int) -> int:
    """How many descriptors, loaded programs and maps of maps refer to the map, each descriptor counted."""
    m = _map(fd, "references")
    count = sum(target is m for target in _open.values())
    programs = {id(t.verified): t.verified for t in _open.values() if isinstance(t, _Loaded)}
    outers = {id(t): t for t in _open.values() if isinstance(t, Map)}
    for outer in outers.values():
        for target in outer.targets.values():
            if isinstance(target, Verified):
                programs[id(target)] = target
            count += target is m
    return count + sum(any(used is m for used in v.program.maps.values()) for v in programs.values())


# ---- maps


def map_create(
    type: int | str, key_size: int, value_size: int, max_entries: int, flags: int = 0, name: str = "", *,
    inner_map_fd: int = 0, extra: int = 0, numa_node: int = 0, possible_cpus: int = 1, privilege: str = "root",
) -> Fd:  # fmt: skip
    """BPF_MAP_CREATE. type: number or name of the BPF_MAP_TYPE_. privilege: root, cap_bpf or none. Other arguments as
    pktbpf.Map. Raises MapError."""
    kind = type.upper().removeprefix("BPF_MAP_TYPE_") if isinstance(type, str) else _kind_name(type)
    if flags & layout.BPF_F_NUMA_NODE and numa_node:
        raise _error(errno.EINVAL, f"map_create: NUMA node {numa_node}")
    inner: Map | None = None
    if kind in attributes.OUTER_KINDS:
        target = _open.get(int(inner_map_fd))
        if isinstance(target, _Loaded):
            raise _error(errno.EINVAL, f"map_create: descriptor {int(inner_map_fd)} is a program")
        inner = target
    return _new_fd(
        Map(kind, key_size, value_size, max_entries, flags, name, inner=inner, extra=extra,
            possible_cpus=possible_cpus, privilege=privilege)
    )  # fmt: skip


def _kind_name(number: int) -> str:
    return BY_NUMBER[number].name if number in BY_NUMBER else f"number {number}"


def map_lookup_elem(fd: int, key: bytes | None, flags: int = 0, *, value: bytes | None = None) -> bytes:
    """BPF_MAP_LOOKUP_ELEM. value: what the buffer holds before, which a Bloom filter looks at."""
    return _map(fd, "map_lookup_elem").lookup(key, flags, value=value)


def map_update_elem(fd: int, key: bytes | None, value: bytes | int | None, flags: int = BPF_ANY) -> None:
    """BPF_MAP_UPDATE_ELEM. For maps of maps and program arrays the value is a descriptor."""
    m = _map(fd, "map_update_elem")
    m.update(key, _referred(m, value), flags)


def _referred(m: Map, value: Any) -> Any:
    """What a descriptor in a value stands for; the bytes themselves when it stands for nothing."""
    if m.kind not in REFERENCE_KINDS or value is None:
        return value
    number = int(value) if isinstance(value, int) else int.from_bytes(value, "little")
    target = _open.get(number)
    if target is None:
        return number.to_bytes(4, "little") if 0 <= number < 1 << 32 else b""
    return target.verified if isinstance(target, _Loaded) else target


def map_delete_elem(fd: int, key: bytes | None) -> None:
    """BPF_MAP_DELETE_ELEM."""
    _map(fd, "map_delete_elem").delete(key)


def map_get_next_key(fd: int, key: bytes | None = None) -> bytes:
    """BPF_MAP_GET_NEXT_KEY; None for the first key."""
    return _map(fd, "map_get_next_key").next_key(key)


def map_lookup_and_delete_elem(fd: int, key: bytes | None, flags: int = 0) -> bytes:
    """BPF_MAP_LOOKUP_AND_DELETE_ELEM."""
    return _map(fd, "map_lookup_and_delete_elem").lookup_and_delete(key, flags)


def map_lookup_batch(
    fd: int, in_batch: bytes | None, count: int, *, elem_flags: int = 0, flags: int = 0, delete: bool = False
) -> Batch:
    """BPF_MAP_LOOKUP_BATCH, with delete BPF_MAP_LOOKUP_AND_DELETE_BATCH. The errno, ENOENT at the map's end, is in the
    answer beside the elements that were copied before it."""
    return _map(fd, "map_lookup_batch")._lookup_batch(in_batch, count, elem_flags, flags, remove=delete)


def map_update_batch(fd: int, keys: Sequence[bytes], values: Sequence[Any], *, elem_flags: int = 0) -> Batch:
    """BPF_MAP_UPDATE_BATCH; errno and count are in the answer."""
    m = _map(fd, "map_update_batch")
    return m._update_batch(keys, [_referred(m, value) for value in values], elem_flags)


def map_delete_batch(fd: int, keys: Sequence[bytes], *, elem_flags: int = 0) -> Batch:
    """BPF_MAP_DELETE_BATCH; errno and count are in the answer."""
    return _map(fd, "map_delete_batch")._delete_batch(keys, elem_flags)


def map_freeze(fd: int) -> None:
    """BPF_MAP_FREEZE."""
    _map(fd, "map_freeze").freeze()


# ---- programs


def prog_load(
    type: int | str, insns: bytes | Iterable[Insn] | Program, license: str | None = "GPL", *, log_level: int = 0,
    log_size: int | None = None, name: str = "", prog_flags: int = 0, expected_attach_type: int = 0,
    privilege: str = "root",
) -> Fd:  # fmt: skip
    """BPF_PROG_LOAD of a socket filter. `prog_log(fd)` has the verifier's log.

    insns: `struct bpf_insn[]`, Insn values or a Program; 64-bit immediates with src 1 or 2 name maps by descriptor (a
    Program brings its own maps). log_level: bits 1, 2, 4 and 8 as in the kernel. log_size: of the buffer, default
    16 MiB when log_level is set; one that the log does not fit in ends in ENOSPC with the log's end (its beginning with
    BPF_LOG_FIXED). Raises LoadRefused with the kernel's errno.
    """
    number = _PROG_TYPES.get(type.upper().removeprefix("BPF_PROG_TYPE_"), -1) if isinstance(type, str) else type
    program = _program(insns)
    if prog_flags & ~_PROG_FLAGS:
        raise LoadRefused(errno.EINVAL, None, f"unknown program flags {prog_flags & ~_PROG_FLAGS:#x}")
    if license is None:
        raise LoadRefused(errno.EFAULT, None, "the license is a null pointer")
    limit = 4096 if privilege == "none" else 1_000_000
    if not 0 < len(program) <= limit:
        raise LoadRefused(errno.E2BIG, None, f"{len(program)} instructions are none, or more than {limit}")
    if number != SOCKET_FILTER:
        denied = privilege == "none"
        raise LoadRefused(errno.EPERM if denied else errno.EINVAL, None, f"program type {type} is no socket filter")
    if expected_attach_type < 0 or prog_flags & 16:
        raise LoadRefused(errno.EINVAL, None, "a socket filter cannot be loaded this way")
    try:
        attributes.check_name(name)
    except MapError as error:
        raise LoadRefused(errno.EINVAL, None, error.reason) from None
    size = _log_size(log_level, log_size)
    program = replace(program, license=license, name=name or program.name)
    return _new_fd(_verified(program, log_level, size, privilege))


def _log_size(level: int, size: int | None) -> int:
    """bpf_verifier_log_attr_valid: no buffer without a level, no unknown level, no size over 1 GiB."""
    if size is None:
        size = 16 << 20 if level else 0
    if (size and not level) or level & ~_LOG_MASK or not 0 <= size <= _LOG_MAX:
        raise LoadRefused(errno.EINVAL, None, f"log level {level} with a buffer of {size} bytes")
    return size


def _program(insns: bytes | Iterable[Insn] | Program) -> Program:
    if isinstance(insns, Program):
        return insns
    code = extended.decode_all(insns) if isinstance(insns, bytes) else tuple(insns)
    maps = {
        slot: target for slot, insn in enumerate(code)
        if insn.code == 0x18 and insn.src in _PSEUDO_MAPS and isinstance(target := _open.get(insn.imm), Map)
    }  # fmt: skip
    return Program(code, maps=maps)


def _verified(program: Program, level: int, size: int, privilege: str) -> _Loaded:
    from pktbpf.verifier import verify

    try:
        verified = verify(program, privilege=privilege, log_level=level & 7)
    except ProgramRefused as refused:
        log = refused.log if level else ""
        cut = _cut(log, level, size)
        number = errno.ENOSPC if cut != log else refused.errno
        raise LoadRefused(number, refused.insn, refused.reason, hint=refused.hint, log=cut) from None
    log = verified.log if level else ""
    cut = _cut(log, level, size)
    if cut != log:
        raise LoadRefused(errno.ENOSPC, None, f"the log of {len(log) + 1} bytes does not fit in {size}", log=cut)
    return _Loaded(verified, log)


def _cut(log: str, level: int, size: int) -> str:
    """What fits in the buffer with the final NUL; everything when there is none (the kernel then only counts)."""
    if not size or len(log) + 1 <= size:
        return log
    return log[: size - 1] if level & BPF_LOG_FIXED else log[len(log) - size + 1 :]


def prog_log(fd: int) -> str:
    """The log that prog_load made, "" without a log_level."""
    get_program(fd)
    target = _open[int(fd)]
    assert isinstance(target, _Loaded)
    return target.log


def obj_get_info(fd: int) -> MapInfo | ProgramInfo:
    """BPF_OBJ_GET_INFO_BY_FD."""
    target = _open.get(int(fd))
    if target is None:
        raise _error(errno.EBADF, f"obj_get_info: descriptor {int(fd)}")
    if isinstance(target, Map):
        return MapInfo(
            BY_NAME[target.kind].number, target.id, target.key_size, target.value_size, target.max_entries,
            target.flags, target.name, target.spec.extra, target.frozen,
        )  # fmt: skip
    program = target.verified.program
    ids = dict.fromkeys(m.id for m in program.maps.values() if isinstance(m, Map))
    return ProgramInfo(
        SOCKET_FILTER, program_id(target.verified), program.tag, program.name, _is_gpl(program.license), tuple(ids),
        program.to_bytes(),
    )  # fmt: skip


def _is_gpl(license: str) -> bool:
    """license_is_gpl_compatible."""
    return license in (
        "GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL",
    )  # fmt: skip
