"""Maps of the live kernel through bpf(2), with the method names of pktbpf.maps.face.Map and raw bytes everywhere.

Every command raises OSError with the kernel's errno. Keys and values are padded before the call, so a wrong size reads
zeros instead of foreign memory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pktbpf.kernel import syscall
from pktbpf.kernel.syscall import address, bpf
from pktbpf.program import MapSpec

LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH, UPDATE_BATCH, DELETE_BATCH = 24, 25, 26, 27
_PERCPU = frozenset({"PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH"})
_PADDING = 64
_BATCH = struct.Struct("<QQQQIIQQ")
_INFO_SIZE = 104


@dataclass(frozen=True, slots=True)
class MapInfo:
    """struct bpf_map_info, the part that means something here."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    extra: int


@dataclass
class LiveBatch:
    """What a batch call left: as pktbpf.maps.batch.Batch."""

    count: int = 0
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    cursor: bytes | None = None
    errno: int = 0


def possible_cpus() -> int:
    """Number of possible processors, which sizes per-CPU values and LRU lists."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def buffer(data: bytes | None) -> ctypes.Array[ctypes.c_char] | None:
    """A zero-padded copy; None stays a null pointer."""
    return None if data is None else ctypes.create_string_buffer(data, len(data) + _PADDING)


class LiveMap:
    """A map in the kernel; attributes as pktbpf.Map takes them. Close it, or use it in a with statement."""

    def __init__(
        self, kind: str, key_size: int = 4, value_size: int = 4, max_entries: int = 1, flags: int = 0, name: str = "",
        *, inner_fd: int = 0, extra: int = 0, numa_node: int = 0,
    ):  # fmt: skip
        attr = bytearray(72)
        number = syscall.MAP_TYPES[kind] if kind in syscall.MAP_TYPES else int(kind)
        struct.pack_into(
            "<IIIIIII16s", attr, 0, number, key_size, value_size, max_entries, flags, inner_fd, numa_node,
            name.encode()[:16],
        )  # fmt: skip
        struct.pack_into("<Q", attr, 64, extra)
        self.fd = bpf(syscall.MAP_CREATE, attr)[0]
        self.kind, self.key_size = kind, key_size
        self.value_size = (value_size + 7) // 8 * 8 * possible_cpus() if kind in _PERCPU else value_size

    @classmethod
    def from_spec(cls, spec: MapSpec, *, inner_fd: int = 0) -> LiveMap:
        """A fresh map with the attributes of a spec."""
        return cls(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name[:15], inner_fd=inner_fd,
            extra=spec.extra,
        )  # fmt: skip

    @classmethod
    def of(cls, fd: int, spec: MapSpec) -> LiveMap:
        """A map that there is already, by a descriptor of which this keeps a copy."""
        one = cls.__new__(cls)
        one.fd, one.kind, one.key_size = os.dup(fd), spec.kind, spec.key_size
        size = spec.value_size
        one.value_size = (size + 7) // 8 * 8 * possible_cpus() if spec.kind in _PERCPU else size
        return one

    def __enter__(self) -> LiveMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back; the kernel keeps the map while a program or a map refers to it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _element(
        self, command: int, key: bytes | None, out: ctypes.Array[ctypes.c_char] | None, flags: int = 0
    ) -> None:
        given = buffer(key)
        bpf(command, struct.pack("<IIQQQ", self.fd, 0, address(given), address(out), flags))

    def lookup(self, key: bytes | None = None, flags: int = 0, *, value: bytes | None = None) -> bytes:
        """The value as the kernel copies it; value: what the buffer holds before."""
        if self.kind == "BLOOM_FILTER" and value is None:
            self._element(syscall.MAP_LOOKUP_ELEM, key, None, flags)
        out = buffer((value or b"").ljust(max(self.value_size, 4), b"\0"))
        assert out is not None
        self._element(syscall.MAP_LOOKUP_ELEM, key, out, flags)
        return out.raw[: self.value_size]

    def update(self, key: bytes | None, value: bytes | None, flags: int = 0) -> None:
        """Set a value."""
        self._element(syscall.MAP_UPDATE_ELEM, key, buffer(value), flags)

    def delete(self, key: bytes | None) -> None:
        """Remove a key."""
        self._element(syscall.MAP_DELETE_ELEM, key, None)

    def next_key(self, key: bytes | None = None) -> bytes:
        """The key after `key`, the first for None."""
        out = buffer(bytes(max(self.key_size, 1)))
        assert out is not None
        self._element(syscall.MAP_GET_NEXT_KEY, key, out)
        return out.raw[: self.key_size]

    def lookup_and_delete(self, key: bytes | None = None, flags: int = 0) -> bytes:
        """The value, which is gone then."""
        out = buffer(bytes(max(self.value_size, 4)))
        assert out is not None
        self._element(syscall.MAP_LOOKUP_AND_DELETE_ELEM, key, out, flags)
        return out.raw[: self.value_size]

    def freeze(self) -> None:
        """No change by the system call any more."""
        bpf(syscall.MAP_FREEZE, struct.pack("<I", self.fd))

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all present entries in the kernel's order of walking."""
        key: bytes | None = None
        while True:
            try:
                key = self.next_key(key)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return
            try:
                value = self.lookup(key)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue
            yield key, value

    def lookup_batch(
        self, cursor: bytes | None = None, count: int = 64, elem_flags: int = 0, flags: int = 0, *, remove: bool = False
    ) -> LiveBatch:  # fmt: skip
        """BPF_MAP_LOOKUP_BATCH or, with remove, BPF_MAP_LOOKUP_AND_DELETE_BATCH. The errno is in the answer."""
        begin, end = buffer(cursor), buffer(bytes(max(self.key_size, 4)))
        keys, values = buffer(bytes(count * self.key_size)), buffer(bytes(count * max(self.value_size, 4)))
        assert keys is not None
        assert values is not None
        assert end is not None
        command = LOOKUP_AND_DELETE_BATCH if remove else LOOKUP_BATCH
        done, got = self._batch(command, begin, end, keys, values, count, elem_flags, flags)
        done.keys = [keys.raw[i * self.key_size : (i + 1) * self.key_size] for i in range(got)]
        done.values = [values.raw[i * self.value_size : (i + 1) * self.value_size] for i in range(got)]
        done.cursor = end.raw[: max(self.key_size, 4)]
        return done

    def update_batch(self, keys: Sequence[bytes], values: Sequence[bytes], elem_flags: int = 0) -> LiveBatch:
        """BPF_MAP_UPDATE_BATCH."""
        given, new = buffer(b"".join(keys)), buffer(b"".join(values))
        return self._batch(UPDATE_BATCH, None, None, given, new, len(keys), elem_flags, 0)[0]

    def delete_batch(self, keys: Sequence[bytes], elem_flags: int = 0) -> LiveBatch:
        """BPF_MAP_DELETE_BATCH."""
        return self._batch(DELETE_BATCH, None, None, buffer(b"".join(keys)), None, len(keys), elem_flags, 0)[0]

    def _batch(
        self, command: int, begin: ctypes.Array[ctypes.c_char] | None, end: ctypes.Array[ctypes.c_char] | None,
        keys: ctypes.Array[ctypes.c_char] | None, values: ctypes.Array[ctypes.c_char] | None, count: int,
        elem_flags: int, flags: int,
    ) -> tuple[LiveBatch, int]:  # fmt: skip
        attr = bytearray(168)
        _BATCH.pack_into(
            attr, 0, address(begin), address(end), address(keys), address(values), count, self.fd, elem_flags, flags
        )
        done = LiveBatch()
        raw = ctypes.create_string_buffer(bytes(attr), len(attr))
        try:
            syscall._raw(command, raw)
        except OSError as error:
            done.errno = error.errno or 0
        got: int = struct.unpack_from("<I", raw.raw, 32)[0]
        done.count = got if done.errno in (0, errno.ENOENT) or got != count else 0
        return done, done.count if command in (LOOKUP_BATCH, LOOKUP_AND_DELETE_BATCH) else 0

    def info(self) -> MapInfo:
        """BPF_OBJ_GET_INFO_BY_FD."""
        info = ctypes.create_string_buffer(_INFO_SIZE)
        bpf(syscall.OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", self.fd, _INFO_SIZE, address(info)))
        kind, number, key, value, entries, flags, name = struct.unpack_from("<IIIIII16s", info.raw)
        extra: int = struct.unpack_from("<Q", info.raw, 80)[0]
        return MapInfo(kind, number, key, value, entries, flags, name.rstrip(b"\0").decode(), extra)
