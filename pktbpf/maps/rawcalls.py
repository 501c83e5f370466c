"""The element calls of bpf(2) on a map, raw: bytes or None in, bytes or 0 or a negative errno out.

Here are the checks that come before a family's own, in the order of kernel/bpf/syscall.c: permissions, spin lock, null
pointers. `pktbpf.maps.face` and `pktbpf.bpf` turn answers into exceptions.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pktbpf.errors import MapError
from pktbpf.maps import batch, layout
from pktbpf.maps.batch import Batch
from pktbpf.maps.families import FAMILIES
from pktbpf.maps.layout import round_up
from pktbpf.maps.storage import Storage
from pktbpf.program import MapSpec, ValueField


class RawCalls:
    """What a map has beside its Python face; `Map` sets the attributes."""

    spec: MapSpec
    storage: Storage
    row: NDArray[np.uint64]
    frozen: bool
    fields: tuple[ValueField, ...]
    percpu: bool

    @property
    def kind(self) -> str:
        """BPF_MAP_TYPE_ name without prefix."""
        return self.spec.kind

    @property
    def key_size(self) -> int:
        """Bytes of a key."""
        return self.spec.key_size

    @property
    def value_size(self) -> int:
        """Bytes of a value, of one processor's in a per-CPU map."""
        return self.spec.value_size

    @property
    def max_entries(self) -> int:
        """As the kernel keeps it: an LRU table with lists per processor rounds up."""
        return int(self.row[layout.MAX_ENTRIES])

    @property
    def flags(self) -> int:
        """map_flags."""
        return self.spec.flags

    @property
    def name(self) -> str:
        """Up to 15 characters."""
        return self.spec.name

    @property
    def inner(self) -> MapSpec | None:
        """What the inner maps are like, None for anything but a map of maps."""
        return self.spec.inner

    @property
    def possible_cpus(self) -> int:
        """Processors the map was made for."""
        return self.storage.possible_cpus

    @property
    def contents(self) -> bytes | None:
        """All values of an ARRAY one after the other, each rounded up to 8 bytes; None for other kinds."""
        if self.kind != "ARRAY":
            return None
        return self.storage.blocks[-1].tobytes()

    @property
    def syscall_value_size(self) -> int:
        """Bytes that the system call copies for a value (bpf_map_value_size)."""
        if self.percpu:
            return round_up(self.value_size) * self.possible_cpus
        return self.value_size

    def __repr__(self) -> str:
        return f"<{self.title}: {FAMILIES[self.kind].count(self)} of {self.max_entries} entries>"

    @property
    def title(self) -> str:
        """How messages call the map."""
        return f"{self.kind} map {self.name}".rstrip()

    def _may(self, read: bool, write: bool) -> bool:
        if read and self.flags & layout.BPF_F_WRONLY:
            return False
        return not (write and (self.frozen or self.flags & layout.BPF_F_RDONLY))

    def _unlockable(self, flags: int) -> bool:
        return bool(flags & layout.BPF_F_LOCK) and not self.row[layout.SPIN_LOCK]

    def _bad_key(self, key: bytes | None) -> int:
        """-EINVAL for a key where there is none, -EFAULT for none where there is one."""
        if self.key_size:
            return 0 if key is not None else -errno.EFAULT
        return 0 if key is None else -errno.EINVAL

    def _lookup(self, key: bytes | None, flags: int, value: bytes | None = None) -> bytes | int:
        if flags & ~layout.BPF_F_LOCK:
            return -errno.EINVAL
        if not self._may(True, False):
            return -errno.EPERM
        if self._unlockable(flags):
            return -errno.EINVAL
        wrong = self._bad_key(key)
        if wrong:
            return wrong
        if self.kind == "BLOOM_FILTER" and value is None:
            return -errno.EFAULT
        return FAMILIES[self.kind].lookup(self, key or b"", value)

    def _update(self, key: bytes | None, value: Any, flags: int) -> int:
        if not self._may(False, True):
            return -errno.EPERM
        if self._unlockable(flags):
            return -errno.EINVAL
        wrong = self._bad_key(key)
        if wrong:
            return wrong
        if value is None and self.value_size:
            return -errno.EFAULT
        return FAMILIES[self.kind].update(self, key or b"", value, flags)

    def _delete(self, key: bytes | None) -> int:
        if not self._may(False, True):
            return -errno.EPERM
        return self._bad_key(key) or FAMILIES[self.kind].delete(self, key or b"")

    def _next(self, key: bytes | None) -> bytes | int:
        if not self._may(True, False):
            return -errno.EPERM
        if key is not None and not self.key_size:
            return -errno.EINVAL
        return FAMILIES[self.kind].following(self, key)

    def _take(self, key: bytes | None, flags: int) -> bytes | int:
        if flags & ~layout.BPF_F_LOCK:
            return -errno.EINVAL
        if not self._may(True, True):
            return -errno.EPERM
        if flags and self.kind in ("QUEUE", "STACK"):
            return -errno.EINVAL
        if self._unlockable(flags):
            return -errno.EINVAL
        return self._bad_key(key) or FAMILIES[self.kind].take(self, key or b"")

    def _freeze(self) -> int:
        if self.fields:
            return -layout.ENOTSUPP
        if not self._may(False, True):
            return -errno.EPERM
        self.frozen = True
        return 0

    def _lookup_batch(
        self, cursor: bytes | None, count: int, elem_flags: int, flags: int = 0, remove: bool = False
    ) -> Batch:  # fmt: skip
        if not self._may(True, remove):
            return Batch(errno=errno.EPERM)
        return batch.lookup(self, cursor, count, elem_flags, flags, remove)

    def _update_batch(self, keys: Sequence[Any], values: Sequence[Any], elem_flags: int) -> Batch:
        if not self._may(False, True):
            return Batch(errno=errno.EPERM)
        return batch.update(self, keys, values, elem_flags)

    def _delete_batch(self, keys: Sequence[Any], elem_flags: int) -> Batch:
        if not self._may(False, True):
            return Batch(errno=errno.EPERM)
        return batch.delete(self, keys, elem_flags)

    def _bytes(self, answer: bytes | int, what: str, key: Any) -> bytes:
        if isinstance(answer, int):
            self._done(answer, what, key)
            raise AssertionError("an answer is bytes or an error")
        return answer

    def _done(self, code: int, what: str, key: Any) -> None:
        if code:
            at = f" {_short(key)}" if key is not None else ""
            raise MapError(-code, f"{self.title}: {what}{at}: {error_text(-code)}")


def error_text(number: int) -> str:
    return "Operation not supported" if number == layout.ENOTSUPP else os.strerror(number)


def _short(key: Any) -> str:
    text = key.hex(" ") if isinstance(key, bytes) else str(key)
    return text if len(text) <= 40 else f"{text[:37]}..."
