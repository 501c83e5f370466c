"""Map: what users hold. A mapping for Python, and the element calls of bpf(2) with the kernel's errno.

Keys and values are bytes; ints and (with BTF) typed values are accepted where `m[key]` and `items()` are used. The
storage behind it is flat memory registered with pktbpf.maps.registry, so programs and this face see the same bytes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.errors import MapError
from pktbpf.maps import dispatch, layout, registry
from pktbpf.maps.layout import round_up
from pktbpf.program import MapSpec


class Map:
    """A live map. kind: BPF_MAP_TYPE_ name without prefix. Sizes in bytes. cpus: processors a per-CPU map has values for.

    Raises MapError (an OSError) with the errno BPF_MAP_CREATE gives for wrong attributes.
    """

    def __init__(
        self, kind: str, key_size: int = 4, value_size: int = 4, max_entries: int = 1, flags: int = 0, name: str = "", *,
        inner: MapSpec | None = None, extra: int = 0, cpus: int = 1, special: tuple[tuple[int, int], ...] = (),
        spin_lock: int | None = None,
    ):  # fmt: skip
        self.spec = MapSpec(kind.upper(), key_size, value_size, max_entries, flags, name, inner, extra)
        self.cpus = cpus if "PERCPU" in self.spec.kind else 1
        self._memory: list[NDArray[np.generic]] = []
        self._row = np.zeros(layout.WIDTH, dtype=np.uint64)
        self._describe(special, spin_lock)
        self.number = registry.add(self._row)
        self._finalizer = weakref.finalize(self, registry.remove, self.number)

    @classmethod
    def from_spec(cls, spec: MapSpec, **options: Any) -> Map:
        """A fresh map with the attributes of a spec."""
        return cls(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name, inner=spec.inner,
            extra=spec.extra, **options,
        )  # fmt: skip

    def _allocate(self, count: int, dtype: type[np.generic] = np.uint8) -> int:
        """Zeroed memory that lives as long as the map; its machine address. Pages are taken when first touched."""
        block = np.zeros(max(count, 1), dtype=dtype)
        self._memory.append(block)
        return int(block.ctypes.data)

    def _describe(self, special: tuple[tuple[int, int], ...], spin_lock: int | None) -> None:
        spec, row = self.spec, self._row
        row[layout.KIND] = BY_NAME[spec.kind].number
        row[layout.KEY_SIZE], row[layout.VALUE_SIZE] = spec.key_size, spec.value_size
        row[layout.MAX_ENTRIES], row[layout.FLAGS], row[layout.CPUS] = spec.max_entries, spec.flags, self.cpus
        row[layout.STRIDE] = round_up(spec.value_size)
        row[layout.STATE_AT] = self._allocate(layout.STATE_SIZE, np.uint64)
        row[layout.SPECIAL_COUNT] = len(special)
        if special:
            block = np.array(sorted(special), dtype=np.uint64)
            self._memory.append(block)
            row[layout.SPECIAL_AT] = block.ctypes.data
        row[layout.SPIN_LOCK] = 0 if spin_lock is None else spin_lock + 1
        rights = 3
        if spec.flags & layout.BPF_F_RDONLY_PROG:
            rights &= ~2
        if spec.flags & layout.BPF_F_WRONLY_PROG:
            rights &= ~1
        row[layout.RIGHTS] = rights
        if spec.kind in ("ARRAY", "PERCPU_ARRAY"):
            self._values(spec.max_entries)
        elif spec.kind in ("HASH", "PERCPU_HASH"):
            self._hash_table()

    def _values(self, slots: int) -> None:
        size = slots * self.cpus * round_up(self.spec.value_size)
        self._row[layout.VALUES_AT], self._row[layout.VALUES_SIZE] = self._allocate(size), size

    def _hash_table(self) -> None:
        spec, row = self.spec, self._row
        spare = 1 if self.spec.kind == "HASH" else 0
        slots = spec.max_entries + spare
        buckets = 1 << max(spec.max_entries - 1, 1).bit_length()
        self._values(slots)
        row[layout.KEY_STRIDE] = round_up(spec.key_size)
        row[layout.KEYS_AT] = self._allocate(slots * round_up(spec.key_size))
        row[layout.HEADS_AT], row[layout.MASK] = self._allocate(buckets, np.uint32), buckets - 1
        row[layout.LINKS_AT] = self._allocate(slots + 1, np.uint32)
        if spare:
            self._memory[0][3] = spec.max_entries + 1  # type: ignore[call-overload]

    def close(self) -> None:
        """Give the memory back; a program that still points here faults."""
        self._finalizer()

    # --- the element calls of bpf(2) -------------------------------------------------------------------------------

    def lookup(self, key: bytes) -> bytes:
        """The value, value_size bytes (per-CPU: one after the other, each rounded up to 8). ENOENT when absent."""
        place = self._key(key)
        out = []
        for cpu in range(self.cpus):
            found = int(dispatch.lookup(self._row, np.uint64(self.number), place, np.uint64(cpu)))
            if not found:
                raise MapError(2, f"{self._title}: no such key")
            out.append(self._read(found & 0xFFFFFFFF))
        return b"".join(v.ljust(round_up(len(v)), b"\0") for v in out) if "PERCPU" in self.spec.kind else out[0]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set a value. Raises MapError with the kernel's errno."""
        code = int(dispatch.update(self._row, self._key(key), self._value(value), np.uint64(flags), np.uint64(0)))
        self._check(code, "update")

    def delete(self, key: bytes) -> None:
        """Remove a key. Raises MapError with the kernel's errno."""
        self._check(int(dispatch.delete(self._row, self._key(key))), "delete")

    @property
    def _title(self) -> str:
        return f"{self.spec.kind} map {self.spec.name}".rstrip()

    def _check(self, code: int, what: str) -> None:
        if code:
            raise MapError(-code, f"{self._title}: {what}: {os.strerror(-code)}")

    def _key(self, key: bytes) -> np.uint64:
        self._key_block = np.frombuffer(key.ljust(8, b"\0"), dtype=np.uint8)
        return np.uint64(self._key_block.ctypes.data)

    def _value(self, value: bytes) -> np.uint64:
        self._value_block = np.frombuffer(value.ljust(8, b"\0"), dtype=np.uint8)
        return np.uint64(self._value_block.ctypes.data)

    def _read(self, offset: int) -> bytes:
        import ctypes

        return ctypes.string_at(int(self._row[layout.VALUES_AT]) + offset, self.spec.value_size)

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("see the families")
