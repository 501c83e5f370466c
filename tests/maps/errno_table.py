"""The generated table of wrong uses: every map kind x creation attribute, and x operation x flags x argument.

Each case is run against an interface (`Ours` or `Live`) and gives an errno, 0 when the call succeeds. The table of the
live kernel is recorded in tests/cases/maps/errnos.json; `python tests/maps/errno_table.py` records it anew.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent.parent / "cases" / "maps" / "errnos.json"
POSSIBLE_CPUS = 2
NO_PREALLOC, ZERO_SEED, BIG = 1, 64, 0xFFFFFFFF

# Attributes that each kind accepts.
BASE: dict[str, dict[str, int]] = {
    "HASH": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "PERCPU_HASH": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "LRU_HASH": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "LRU_PERCPU_HASH": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "ARRAY": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "PERCPU_ARRAY": {"key_size": 4, "value_size": 8, "max_entries": 4},
    "PROG_ARRAY": {"key_size": 4, "value_size": 4, "max_entries": 4},
    "PERF_EVENT_ARRAY": {"key_size": 4, "value_size": 4, "max_entries": 4},
    "CGROUP_ARRAY": {"key_size": 4, "value_size": 4, "max_entries": 4},
    "ARRAY_OF_MAPS": {"key_size": 4, "value_size": 4, "max_entries": 4},
    "HASH_OF_MAPS": {"key_size": 4, "value_size": 4, "max_entries": 4},
    "LPM_TRIE": {"key_size": 8, "value_size": 8, "max_entries": 4, "flags": NO_PREALLOC},
    "QUEUE": {"key_size": 0, "value_size": 8, "max_entries": 4},
    "STACK": {"key_size": 0, "value_size": 8, "max_entries": 4},
    "BLOOM_FILTER": {"key_size": 0, "value_size": 8, "max_entries": 4},
    "RINGBUF": {"key_size": 0, "value_size": 0, "max_entries": 4096},
    "USER_RINGBUF": {"key_size": 0, "value_size": 0, "max_entries": 4096},
    "STACK_TRACE": {"key_size": 4, "value_size": 8, "max_entries": 4},
}
OUTER = ("ARRAY_OF_MAPS", "HASH_OF_MAPS")
HASHES = ("HASH", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH", "HASH_OF_MAPS")
_SIZES = (0, 1, 3, 4, 5, 7, 8, 9, 16, 260, 261, 1016, 1024, 32760, 32761, 32768, 32769, 1 << 20, (4 << 20) - 57,
          (4 << 20) - 56, (4 << 20) - 8, 4 << 20, (4 << 20) + 1, 0x7FFFFFFF, 0x80000000, BIG)  # fmt: skip
_KEYS = (0, 1, 3, 4, 5, 8, 20, 260, 261, (4 << 20) - 8, 4 << 20, BIG)
_ENTRIES = {
    "RINGBUF": (0, 1, 4095, 4096, 4097, 8192, 12288, BIG),
    "USER_RINGBUF": (0, 1, 4095, 4096, 4097, 8192, 12288, BIG),
    "BLOOM_FILTER": (0, 1, 2, 1000),
}
# Flag 16 (BPF_F_TOKEN_FD) and above belong to the command, not to a map; 15 and less are tried.
_FLAGS = (*(1 << bit for bit in range(16)), 8 | 16, 128 | 256, 8 | 128, 1 | 2, 32 | 8, 1 << 30)
Case = tuple[str, str, dict[str, Any]]


def creations() -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, attributes) of maps to create; values too large to allocate on any machine, never merely large ones."""
    for kind, base in BASE.items():
        yield kind, base
        for size in _KEYS:
            yield kind, {**base, "key_size": size}
        for size in _SIZES:
            if size < 1 << 20 or kind not in ("PROG_ARRAY",):
                yield kind, {**base, "value_size": size, "max_entries": base["max_entries"] if size < 4096 else 1}
        for entries in _ENTRIES.get(kind, (0, 1, 3, 4)):
            yield kind, {**base, "max_entries": entries}
        if kind in HASHES:
            yield kind, {**base, "max_entries": (1 << 31) + 1}
            yield kind, {**base, "max_entries": BIG}
        elif base["value_size"] == 8 and kind not in ("BLOOM_FILTER", "LPM_TRIE", "STACK_TRACE", "PERCPU_ARRAY"):
            yield kind, {**base, "max_entries": BIG, "value_size": 1 << 20}
        for flags in _FLAGS:
            yield kind, {**base, "flags": flags}
            yield kind, {**base, "flags": flags | base.get("flags", 0)}
        for extra in (1, 15, 16, 1 << 40):
            yield kind, {**base, "extra": extra}
        for name in ("ok_name.1", "bad-name", "a" * 15, "a" * 16, "spa ce"):
            yield kind, {**base, "name": name}
        yield kind, {**base, "flags": 8 | 16, "extra": 1, "value_size": 0}
        yield kind, {**base, "flags": 1 << 14, "max_entries": 0}
        if kind in OUTER:
            for inner in ("none", "outer", *BASE):
                yield kind, {**base, "inner": inner}
    for kind in ("UNSPEC", "99"):
        yield kind, BASE["HASH"]


def creation_name(kind: str, attributes: dict[str, Any]) -> str:
    """A case's name in the recorded table."""
    return f"create {kind} " + " ".join(f"{name}={value}" for name, value in attributes.items())


class Side:
    """One of the two that are compared. `make` creates a map; its methods are those of pktbpf.Map."""

    def make(self, kind: str, inner: Any = None, **attributes: Any) -> Any:
        raise NotImplementedError

    def reference(self, what: str, m: Any) -> Any:
        """A value for maps that hold references: `inner` a map like the template, `other` one unlike it, `bad` none."""
        raise NotImplementedError


def create(side: Side, kind: str, attributes: dict[str, Any]) -> Any:
    """A map with an inner template where the kind needs one."""
    attributes = dict(attributes)
    wanted = attributes.pop("inner", "ARRAY" if kind in OUTER else "")
    inner = None
    if wanted == "outer":
        inner = side.make("ARRAY_OF_MAPS", side.make("ARRAY", **BASE["ARRAY"]), **BASE["ARRAY_OF_MAPS"])
    elif wanted in OUTER:
        inner = side.make(wanted, side.make("ARRAY", **BASE["ARRAY"]), **BASE[wanted])
    elif wanted not in ("", "none"):
        inner = side.make(wanted, **BASE[wanted])
    return side.make(kind, inner, **attributes)


def outcome(call: Callable[[], Any]) -> int:
    """The errno of a call, 0 for none. A batch call has it in its answer."""
    try:
        answer = call()
    except OSError as error:
        return error.errno or -1
    return int(getattr(answer, "errno", 0))


def keys(kind: str, size: int) -> dict[str, bytes | None]:
    """Keys to try, by name; entry 1 is present, entry 3 absent, 4 and more past the end of an array."""
    if not size:
        return {"null": None, "some": b"\1\0\0\0"}
    if kind == "LPM_TRIE":
        present, absent = b"\x10\0\0\0\x0a\1\0\0", b"\x18\0\0\0\x0b\1\1\0"
        return {"null": None, "present": present, "absent": absent, "past": b"\x21\0\0\0" + bytes(4)}
    return {"null": None, "present": b"\1\0\0\0", "absent": b"\3\0\0\0", "past": b"\4\0\0\0", "far": b"\xff" * 4}


def operations(side: Side, kind: str, state: str) -> Iterator[tuple[str, int]]:
    """(name, errno) of every operation on maps of a kind. state: empty, filled, full, frozen, rdonly or wronly."""
    base = dict(BASE[kind])
    extra = {"rdonly": 8, "wronly": 16}.get(state, 0) | (ZERO_SEED if kind in HASHES else 0)

    def fresh() -> Any:
        m = create(side, kind, {**base, "flags": base.get("flags", 0) | extra})
        fill(side, m, kind, state)
        return m

    def run(name: str, call: Callable[[Any], Any]) -> tuple[str, int]:
        m = fresh()
        try:
            return f"{kind} {state} {name}", outcome(lambda: call(m))
        finally:
            m.close()

    for key_name, key in keys(kind, base["key_size"]).items():
        for flags in (0, 1, 4, 8):
            yield run(f"lookup {key_name} {flags}", lambda m, k=key, f=flags: m.lookup(k, f, value=_probe(kind)))
            yield run(f"take {key_name} {flags}", lambda m, k=key, f=flags: m.lookup_and_delete(k, f))
        for flags in (0, 1, 2, 3, 4, 5, 6, 8, 1 << 33):
            for what in ("value", "null", "inner", "other", "bad"):
                if (what in ("inner", "other", "bad")) == (kind in OUTER or (kind.endswith("_ARRAY") and base[
                    "value_size"] == 4)) or what == "null":  # fmt: skip
                    yield run(f"update {key_name} {what} {flags}",
                              lambda m, k=key, w=what, f=flags: m.update(k, _value(side, m, kind, w), f))  # fmt: skip
        yield run(f"delete {key_name}", lambda m, k=key: m.delete(k))
        yield run(f"next {key_name}", lambda m, k=key: m.next_key(k))
    yield run("freeze", lambda m: m.freeze())
    for elem_flags in (0, 1, 4):
        for count in (0, 1, 8):
            yield run(f"lookup batch {count} {elem_flags}", lambda m, n=count, f=elem_flags: side_batch(m, n, f, False))
            yield run(f"take batch {count} {elem_flags}", lambda m, n=count, f=elem_flags: side_batch(m, n, f, True))
        some = [key for key in keys(kind, base["key_size"]).values() if key is not None] or [b""]
        yield run(f"delete batch {elem_flags}", lambda m, s=some, f=elem_flags: raw_delete_batch(m, s, f))
        yield run(f"update batch {elem_flags}",
                  lambda m, s=some, f=elem_flags: raw_update_batch(side, m, kind, s, f))  # fmt: skip


def side_batch(m: Any, count: int, elem_flags: int, remove: bool) -> Any:
    """A batch lookup whose errno is in the answer, on either side."""
    if hasattr(m, "_lookup_batch"):
        return m._lookup_batch(None, count, elem_flags, remove=remove)
    return m.lookup_batch(None, count, elem_flags, remove=remove)


def raw_delete_batch(m: Any, some: list[bytes], elem_flags: int) -> Any:
    """A batch delete whose errno is in the answer."""
    return m._delete_batch(some, elem_flags) if hasattr(m, "_delete_batch") else m.delete_batch(some, elem_flags)


def raw_update_batch(side: Side, m: Any, kind: str, some: list[bytes], elem_flags: int) -> Any:
    """A batch update whose errno is in the answer."""
    value = _value(side, m, kind, "inner" if kind in OUTER else "value")
    values = [value] * len(some)
    if hasattr(m, "_update_batch"):
        return m._update_batch(some, values, elem_flags)
    return m.update_batch(some, values, elem_flags)


def _probe(kind: str) -> bytes | None:
    return b"absent.." if kind == "BLOOM_FILTER" else None


def _value(side: Side, m: Any, kind: str, what: str) -> Any:
    if what == "null":
        return None
    if what == "value":
        percpu = kind in ("PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH")
        return bytes(range(1, 9)) * (POSSIBLE_CPUS if percpu else 1) if BASE[kind]["value_size"] == 8 else b"\xff" * 4
    return side.reference(what, m)


def fill(side: Side, m: Any, kind: str, state: str) -> None:
    """Bring a fresh map into a state."""
    if state in ("empty", "rdonly", "wronly"):
        return
    size = BASE[kind]["key_size"]
    numbers = (0, 1, 2, 5) if state == "full" and "HASH" in kind else (1,) if state != "full" else (0, 1, 2, 3)
    for number in numbers:
        key: bytes | None = None
        if kind == "LPM_TRIE":
            key = b"\x10\0\0\0\x0a" + bytes([number, 0, 0])
        elif size:
            key = number.to_bytes(4, "little")
        outcome(lambda k=key: m.update(k, _value(side, m, kind, "inner" if kind in OUTER else "value")))  # type: ignore[misc]
    if state == "frozen":
        m.freeze()


def states(kind: str) -> tuple[str, ...]:
    """Ring buffers know no access flags; a change of a map of maps waits for a grace period, so it is tried less."""
    if kind.endswith("RINGBUF"):
        return ("empty", "frozen")
    if kind in OUTER:
        return ("empty", "filled", "frozen")
    return ("empty", "filled", "full", "frozen", "rdonly", "wronly")


def table(side: Side) -> dict[str, int]:
    """Every case with its errno."""
    out: dict[str, int] = {}
    for kind, attributes in creations():
        out[creation_name(kind, attributes)] = outcome(lambda k=kind, a=attributes: close(create(side, k, a)))  # type: ignore[misc]
    for kind in BASE:
        for state in states(kind):
            out.update(operations(side, kind, state))
    return out


def close(m: Any) -> None:
    """Give a map back."""
    m.close()


class Live(Side):
    """The live kernel. Inner maps stay open for the life of the table."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def make(self, kind: str, inner: Any = None, **attributes: Any) -> Any:
        from pktbpf.kernel.maps import LiveMap

        made = LiveMap(kind, inner_fd=inner.fd if inner is not None else 0xFFFF, **attributes) if (
            kind in OUTER) else LiveMap(kind, **attributes)  # fmt: skip
        if inner is not None:
            inner.close()
        return made

    def reference(self, what: str, m: Any) -> bytes:
        if what == "bad":
            return b"\xff" * 4
        base = BASE["ARRAY"] if what == "inner" else BASE["HASH"]
        self.kept.append(self.make("ARRAY" if what == "inner" else "HASH", **base))
        while len(self.kept) > 8:
            self.kept.pop(0).close()
        return int(self.kept[-1].fd).to_bytes(4, "little")


class Ours(Side):
    """pktbpf.Map."""

    def make(self, kind: str, inner: Any = None, **attributes: Any) -> Any:
        from pktbpf.maps.face import Map

        return Map(kind, inner=inner, possible_cpus=POSSIBLE_CPUS, **attributes)

    def reference(self, what: str, m: Any) -> Any:
        if what == "bad":
            return b"\xff" * 4
        return self.make("ARRAY", **BASE["ARRAY"]) if what == "inner" else self.make("HASH", **BASE["HASH"])


def main() -> int:
    """Record the live kernel's table."""
    RECORDED.parent.mkdir(parents=True, exist_ok=True)
    entries = table(Live())
    head = {"kernel": os.uname().release, "possible_cpus": POSSIBLE_CPUS}
    lines = [f"  {json.dumps(name)}: {number}" for name, number in entries.items()]
    RECORDED.write_text(f'{{"recorded": {json.dumps(head)}, "errnos": {{\n' + ",\n".join(lines) + "\n}}\n")
    print(len(entries), "cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
