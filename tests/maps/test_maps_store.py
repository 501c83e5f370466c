"""Maps written to a directory and read back: the same contents, types and order, and evictions that go on."""

from __future__ import annotations

import random
from pathlib import Path

import errno_table
import numpy as np
import pytest

from pktbpf.errors import MapError
from pktbpf.maps import dispatch_more, perf, ringbuf, store
from pktbpf.maps.elements import place
from pktbpf.maps.face import Map
from pktbpf.objfile.btf import Btf
from pktbpf.objfile.btf_data import DataType
from pktbpf.program import Program, trust

TABLES = [
    ("HASH", 4, 0), ("HASH", 13, 1), ("PERCPU_HASH", 4, 0), ("LRU_HASH", 4, 0), ("LRU_HASH", 4, 2),
    ("LRU_PERCPU_HASH", 4, 0), ("LRU_PERCPU_HASH", 4, 2), ("LPM_TRIE", 8, 1), ("ARRAY", 4, 0), ("PERCPU_ARRAY", 4, 0),
]  # fmt: skip


def key_for(m: Map, number: int) -> bytes:
    if m.kind == "LPM_TRIE":
        return (number % 33).to_bytes(4, "little") + (number * 2654435761 % 2**32).to_bytes(4, "little")
    return number.to_bytes(4, "little").ljust(m.key_size, b"\5")


def churn(m: Map, rng: random.Random, count: int, keys: int) -> list[int]:
    """Random operations as a program does them; the answers."""
    out = []
    for _ in range(count):
        at, held = place(key_for(m, rng.randrange(keys)))
        cpu = np.uint64(rng.randrange(2))
        kind = rng.choice("llluuud")
        if kind == "l":
            out.append(int(int(dispatch_more.lookup(m.row, np.uint64(m.number), at, cpu)) != 0))
        elif kind == "u":
            data, also = place(rng.randbytes(8))
            out.append(int(dispatch_more.update(m.row, at, data, np.uint64(0), cpu)))
            del also
        else:
            out.append(int(dispatch_more.delete(m.row, at)))
        del held
    return out


@pytest.mark.parametrize(("kind", "key_size", "flags"), TABLES)
@pytest.mark.parametrize("entries", [4, 150, 900])
def test_tables_go_on_where_they_stopped(kind: str, key_size: int, flags: int, entries: int, tmp_path: Path) -> None:
    m = Map(kind, key_size, 8, entries, flags, "table", possible_cpus=2)
    churn(m, random.Random(entries), entries * 4, entries * 2)
    store.save({"table": m}, tmp_path)
    (again,) = store.load(tmp_path).values()
    assert (again.spec, again.possible_cpus) == (m.spec, 2)
    assert list(again.raw_items()) == list(m.raw_items())
    assert len(m) > 0
    first, second = random.Random(99), random.Random(99)
    assert churn(m, first, entries * 6, entries * 2) == churn(again, second, entries * 6, entries * 2)
    assert list(again.raw_items()) == list(m.raw_items())
    assert len(again) == len(m)


@pytest.mark.parametrize("kind", ["QUEUE", "STACK"])
def test_queues(kind: str, tmp_path: Path) -> None:
    m = Map(kind, 0, 8, 5)
    for number in range(9):
        m.push(number, 2)
    m.pop()
    store.save({"q": m}, tmp_path)
    again = store.load(tmp_path)["q"]
    assert list(again.values()) == list(m.values()) != []
    assert [again.pop() for _ in range(4)] == [m.pop() for _ in range(4)]


def test_filters_rings_and_events(tmp_path: Path) -> None:
    bloom, ring, perfs = Map("BLOOM_FILTER", 0, 4, 50), Map("RINGBUF", 0, 0, 4096), Map("PERF_EVENT_ARRAY", 4, 4, 2)
    user = Map("USER_RINGBUF", 0, 0, 4096)
    user.produce(b"to the program")
    for number in range(40):
        bloom.push(number)
    data, held = place(b"0123456789")
    zero = np.uint64(0)
    for _ in range(500):
        ring.records()
        assert ringbuf.output(ring.row, data, np.uint64(10), zero) == 0
    assert perf.output(perfs.row, np.uint64(1), np.uint64(1), np.uint64(7), data, np.uint64(10), zero) == 0
    del held
    store.save({"bloom": bloom, "ring": ring, "perf": perfs, "user": user}, tmp_path)
    again = store.load(tmp_path)
    assert [n in again["bloom"] for n in range(500)] == [n in bloom for n in range(500)]
    assert again["ring"].records() == ring.records() == [b"0123456789"]
    assert again["perf"].events() == perfs.events() != []
    assert int(ringbuf.user_peek(again["user"].row)[2]) == 14


def test_maps_of_maps_and_programs(tmp_path: Path) -> None:
    inner, other = Map("ARRAY", 4, 8, 1), Map("ARRAY", 4, 8, 1, name="other")
    inner[0], other[0] = 5, 6
    outer = Map("HASH_OF_MAPS", 4, 4, 4, name="outer", inner=inner)
    outer[1], outer[2] = inner, other
    programs = Map("PROG_ARRAY", 4, 4, 3)
    first = trust(Program((), name="first"))
    programs[2] = first
    store.save({"outer": outer, "other": other, "jumps": programs}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "jumps.json", "other.json", "outer.01000000.json", "outer.json"
    ]  # fmt: skip
    again = store.load(tmp_path, programs={"first": first})
    assert again["outer"][2] is again["other"]
    assert {key: found[0] for key, found in again["outer"].items()} == {1: 5, 2: 6}
    assert again["jumps"].programs() == {2: first}
    assert store.load(tmp_path)["jumps"].programs() == {}
    assert store.load_one(tmp_path / "outer.json")[1][0] == 5


def test_attributes_and_names(tmp_path: Path) -> None:
    m = Map("ARRAY", 4, 16, 3, name="data", spin_lock=4)
    m[1] = b"\1" * 16
    m.freeze()
    read_only = Map("HASH", 4, 4, 2, 8)
    store.save({"a/../b c": m, ".rodata": m, "locked": read_only}, tmp_path)
    assert all(path.parent == tmp_path for path in tmp_path.iterdir())
    again = store.load(tmp_path)
    assert set(again) == {"a/../b c", "locked", ".rodata"}
    back = again["a/../b c"]
    assert (back.frozen, back.special) == (True, ((4, 4),))
    assert list(back.raw_items()) == list(m.raw_items())


def counter_types() -> tuple[DataType, DataType]:
    """`unsigned int` and `struct { unsigned int packets, bytes; }`."""
    import struct

    text = b"\0unsigned int\0packets\0bytes\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 32)
    types += struct.pack("<III", 0, 4 << 24 | 2, 8) + struct.pack("<IIIIII", 14, 1, 0, 22, 1, 32)
    raw = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(text)) + types + text
    btf = Btf.parse(raw)
    return DataType.of(btf, 1), DataType.of(btf, 2)


def test_types_come_back(tmp_path: Path) -> None:
    key, value = counter_types()
    m = Map("HASH", 4, 8, 4, key_type=key, value_type=value)
    m[6] = {"packets": 3, "bytes": 180}
    store.save({"flows": m}, tmp_path)
    again = store.load(tmp_path, make_type=lambda raw, number: DataType.of(Btf.parse(raw), number))["flows"]
    assert dict(again.items()) == {6: {"packets": 3, "bytes": 180}}
    assert store.load(tmp_path)["flows"][6] == 180 << 32 | 3


@pytest.mark.parametrize("kind", sorted(errno_table.BASE))
def test_every_kind_can_be_saved_when_empty(kind: str, tmp_path: Path) -> None:
    inner = Map("ARRAY", **errno_table.BASE["ARRAY"]) if kind in errno_table.OUTER else None  # type: ignore[arg-type]
    m = Map(kind, inner=inner, **errno_table.BASE[kind])  # type: ignore[arg-type]
    store.save({"m": m}, tmp_path)
    assert store.load(tmp_path)["m"].spec == m.spec


def test_damaged_files_are_one_line_errors(tmp_path: Path) -> None:
    rng = random.Random(5)
    maps = {"h": Map("HASH", 4, 8, 4), "l": Map("LRU_HASH", 4, 8, 4, 2), "r": Map("RINGBUF", 0, 0, 4096)}
    maps["h"][1] = 2
    maps["l"][1] = 2
    store.save(maps, tmp_path)
    originals = {path: path.read_text() for path in tmp_path.iterdir()}
    messages: list[str] = []
    for _ in range(600):
        path = rng.choice(sorted(originals))
        text = list(originals[path])
        for _ in range(rng.randrange(1, 4)):
            text[rng.randrange(len(text))] = rng.choice('0129afx{}[]",:-')
        path.write_text("".join(text))
        try:
            store.load(tmp_path)
        except MapError as error:
            messages.append(str(error))
        path.write_text(originals[path])
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
