"""Map: what users hold. A mapping for Python, and the element calls of bpf(2) with the kernel's errno.

The storage behind it is flat memory registered with pktbpf.maps.registry, so programs and this face see the same bytes.
It lives as long as anything refers to the map: a variable, a program, a map of maps.
"""

from __future__ import annotations

import errno
import itertools
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from pktbpf.errors import MapError, errno_name
from pktbpf.maps import attributes, codec, events, layout, registry
from pktbpf.maps.attributes import OUTER_KINDS, PERCPU_KINDS
from pktbpf.maps.batch import Batch
from pktbpf.maps.mapping import PythonFace
from pktbpf.maps.rawcalls import error_text
from pktbpf.maps.storage import Storage
from pktbpf.program import MapSpec, Program, ValueField, Verified

_ids = itertools.count(1)


class Map(PythonFace):
    """A live map. kind: BPF_MAP_TYPE_ name without prefix. Sizes in bytes.

    inner: for a map of maps the map (or its MapSpec) that all inner ones must be like. extra: map_extra. key_type,
    value_type: BTF codecs, see pktbpf.maps.codec. possible_cpus: processors that per-CPU maps have values for and LRU
    tables have lists for (an LRU table evicts as a kernel with as many). special: (offset, size) of timers and kernel
    pointers in the value, spin_lock: offset of its bpf_spin_lock. fields: the same for the verifier, as ValueField or
    its first parts. privilege: root, cap_bpf or none. Raises MapError (an OSError) with the errno of BPF_MAP_CREATE.

    `m[key]` gives an int for values of 1, 2, 4 or 8 bytes, bytes for others, what the BTF type says with one, a list of
    these (one per processor) for a per-CPU map, a Map or a program for maps that hold such.
    """

    def __init__(
        self, kind: str, key_size: int = 4, value_size: int = 4, max_entries: int = 1, flags: int = 0, name: str = "",
        *, inner: Map | MapSpec | None = None, extra: int = 0, possible_cpus: int = 1, key_type: Any = None,
        value_type: Any = None, special: tuple[tuple[int, int], ...] = (), spin_lock: int | None = None,
        fields: Sequence[Any] = (), privilege: str = "root",
    ):  # fmt: skip
        template = inner.spec if isinstance(inner, Map) else inner
        kind = kind.upper().removeprefix("BPF_MAP_TYPE_")
        self.spec: MapSpec = MapSpec(kind, key_size, value_size, max_entries, flags, name, template, extra)
        attributes.check(self.spec, privilege)
        if kind in OUTER_KINDS:
            _check_inner(template)
        self.fields = tuple(ValueField(*field) for field in fields)
        locks = [field.offset for field in self.fields if field.kind == "spin_lock"]
        spin_lock = locks[0] if spin_lock is None and locks else spin_lock
        lock = () if spin_lock is None else ((spin_lock, 4),)
        others = tuple((field.offset, field.size) for field in self.fields if field.kind != "spin_lock")
        self.special: tuple[tuple[int, int], ...] = tuple(dict.fromkeys((*special, *others, *lock)))
        self.inner_special: tuple[tuple[int, int], ...] = inner.special if isinstance(inner, Map) else ()
        self.key_type, self.value_type = key_type, value_type
        self.percpu = kind in PERCPU_KINDS
        self.outer = kind in OUTER_KINDS
        self.cpu = 0  # processor whose LRU lists the system call works on
        self.frozen = False
        self.targets: dict[Any, Any] = {}
        self.version = 0  # grows when a PROG_ARRAY changes
        self.storage = Storage(self.spec, possible_cpus, self.special, spin_lock)
        attributes.check_name(name)
        self.row = self.storage.row
        self.id = next(_ids)
        self.number = registry.add(self.row)
        self._finalizer = weakref.finalize(self, registry.remove, self.number)

    @classmethod
    def from_spec(cls, spec: MapSpec, **options: Any) -> Map:
        """A fresh map with the attributes of a spec; of a definition from an object file also its types, its first
        contents and whether it is frozen. Slots that name programs or maps are left empty, see pktbpf.instance."""
        for name in ("key_type", "value_type", "fields"):
            if getattr(spec, name, None) is not None:
                options.setdefault(name, getattr(spec, name))
        made = cls(
            spec.kind, spec.key_size, spec.value_size, spec.max_entries, spec.flags, spec.name[:15], inner=spec.inner,
            extra=spec.extra, **options,
        )  # fmt: skip
        initial = getattr(spec, "initial", None)
        if initial is not None:
            made.update(bytes(4), initial)
        if getattr(spec, "frozen", False):
            made.freeze()
        return made

    def close(self) -> None:
        """Nothing to do: the memory goes with the last reference. For code that closes what the kernel gave it."""

    # --- the element calls of bpf(2) -------------------------------------------------------------------------------

    def lookup(self, key: Any = None, flags: int = 0, *, value: Any = None) -> bytes:
        """The value, value_size bytes; of a per-CPU map all processors' values, each rounded up to 8 bytes. ENOENT when
        absent. A queue or stack (no key) gives the next value and keeps it; a Bloom filter takes `value`."""
        given = self._value(value) if value is not None else None
        return self._bytes(self._lookup(self._key(key), flags, given), "lookup", key)

    def update(self, key: Any, value: Any, flags: int = 0) -> None:
        """Set a value; flags BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK. For a queue or Bloom filter key is None."""
        self._done(self._update(self._key(key), self._value(value), flags), "update", key)

    def delete(self, key: Any) -> None:
        """Remove a key."""
        self._done(self._delete(self._key(key)), "delete", key)

    def next_key(self, key: Any = None) -> bytes:
        """The key after `key` as the kernel walks, the first for None or an absent key. ENOENT at the end."""
        return self._bytes(self._next(self._key(key)), "next key", key)

    def lookup_and_delete(self, key: Any = None, flags: int = 0) -> bytes:
        """The value, which is gone then; of a queue or stack the next one."""
        return self._bytes(self._take(self._key(key), flags), "lookup and delete", key)

    def freeze(self) -> None:
        """No change by the system call any more; programs still may. EPERM when it is frozen already."""
        self._done(self._freeze(), "freeze", None)

    def lookup_batch(self, cursor: bytes | None = None, count: int = 64, elem_flags: int = 0) -> Batch:
        """Up to `count` elements from a cursor on (None: the start). At the map's end errno is ENOENT."""
        return self._batch(self._lookup_batch(cursor, count, elem_flags), "lookup batch")

    def lookup_and_delete_batch(self, cursor: bytes | None = None, count: int = 64, elem_flags: int = 0) -> Batch:
        """The same for hash tables, and what was looked up is deleted."""
        return self._batch(self._lookup_batch(cursor, count, elem_flags, remove=True), "lookup and delete batch")

    def update_batch(self, entries: Iterable[tuple[Any, Any]], elem_flags: int = 0) -> int:
        """Set many values; how many. A MapError has the Batch in `results`."""
        pairs = [(self._key(key), self._value(value)) for key, value in entries]
        done = self._update_batch([k for k, _ in pairs], [v for _, v in pairs], elem_flags)
        return self._batch(done, "update batch").count

    def delete_batch(self, keys: Iterable[Any], elem_flags: int = 0) -> int:
        """Remove many keys; how many."""
        return self._batch(self._delete_batch([self._key(key) for key in keys], elem_flags), "delete batch").count

    def _batch(self, done: Batch, what: str) -> Batch:
        if done.errno and not (done.errno == errno.ENOENT and what.startswith("lookup")):
            error = MapError(done.errno, f"{self.title}: {what}: {error_text(done.errno)}")
            error.results = done
            raise error
        return done

    # --- queues, rings, events, programs ---------------------------------------------------------------------------

    def push(self, value: Any, flags: int = 0) -> None:
        """Append to a queue, stack or Bloom filter. E2BIG when full; with BPF_EXIST the oldest value gives way."""
        self.update(None, value, flags)

    def pop(self) -> Any:
        """The next value of a queue or stack, which is gone then. ENOENT when empty."""
        return codec.decode(self.lookup_and_delete(), self.value_type)

    def peek(self) -> Any:
        """The next value of a queue or stack."""
        return codec.decode(self.lookup(), self.value_type)

    def records(self, *, consume: bool = True) -> list[bytes]:
        """Consume a RINGBUF: all submitted records in order, up to the first that is still reserved. consume: False
        leaves them there."""
        return events.records(self, consume)

    def produce(self, data: bytes, *, discard: bool = False) -> None:
        """Put a record into a USER_RINGBUF, where bpf_user_ringbuf_drain finds it. ENOSPC when there is no room."""
        self._done(events.produce(self, bytes(data), discard), "produce", None)

    def events(self, *, consume: bool = True) -> list[events.Event]:
        """What programs put out into a PERF_EVENT_ARRAY since the last call. consume: False leaves it there."""
        return events.events(self, consume)

    @property
    def lost(self) -> int:
        """Events of a PERF_EVENT_ARRAY that found no room."""
        return events.lost(self)

    def programs(self) -> dict[int, Any]:
        """Programs of a PROG_ARRAY by index; `version` tells whether it has changed."""
        return {index: found for index, found in self.targets.items() if isinstance(found, Program | Verified)}


def _check_inner(template: MapSpec | None) -> None:
    """bpf_map_meta_alloc: which maps may be inner ones."""
    if template is None:
        raise attributes.refuse(errno.EBADF, "a map of maps needs an inner map to be like")
    if template.kind in OUTER_KINDS:
        raise attributes.refuse(errno.EINVAL, "maps of maps do not nest deeper")
    if template.kind == "PROG_ARRAY":
        raise attributes.refuse(layout.ENOTSUPP, f"a PROG_ARRAY cannot be an inner map ({errno_name(layout.ENOTSUPP)})")
