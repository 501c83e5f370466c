"""Random operations on a map of ours and one of the live kernel: same answers, same order of walking, same contents.

The process is bound to one processor, so the kernel's LRU lists of that processor decide evictions; hash tables are
created with BPF_F_ZERO_SEED, so that buckets agree.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.kernel.maps import LiveMap, possible_cpus
from pktbpf.maps.face import Map

pytestmark = pytest.mark.kernel
ZERO_SEED, NO_PREALLOC, OWN_LISTS = 64, 1, 2


@pytest.fixture(autouse=True)
def _one_processor() -> Iterator[None]:
    try:
        syscall.available()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def answer(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or its errno negated."""
    try:
        return call(*arguments)
    except OSError as error:
        return -(error.errno or 0)


def make(kind: str, *attributes: int, extra: int = 0) -> tuple[LiveMap, Map]:
    ours = Map(kind, *attributes, possible_cpus=possible_cpus(), extra=extra)
    ours.cpu = min(os.sched_getaffinity(0))
    return LiveMap(kind, *attributes, extra=extra), ours


def same_contents(live: LiveMap, ours: Map) -> None:
    if ours.key_size:
        assert list(live.raw_items()) == list(ours.raw_items())
    live.close()


def step(rng: random.Random, live: LiveMap, ours: Map, keys: list[bytes | None]) -> tuple[str, Any, Any]:
    """One operation on both: its description and the two answers."""
    key = rng.choice(keys)
    name = rng.choices(("update", "lookup", "delete", "lookup_and_delete", "next_key"), (8, 3, 1, 1, 2))[0]
    arguments: tuple[Any, ...] = (key,)
    if name == "update":
        arguments = (key, rng.randbytes(live.value_size), rng.choice((0, 0, 0, 0, 1, 2, 3, 4)))
    text = f"{name}{arguments}"
    return text, answer(getattr(live, name), *arguments), answer(getattr(ours, name), *arguments)


HASHES = [
    (kind, ZERO_SEED | flags, entries, sizes)
    for kind, flags in (
        ("HASH", 0), ("HASH", NO_PREALLOC), ("PERCPU_HASH", 0), ("PERCPU_HASH", NO_PREALLOC), ("LRU_HASH", 0),
        ("LRU_HASH", OWN_LISTS), ("LRU_PERCPU_HASH", 0), ("LRU_PERCPU_HASH", OWN_LISTS),
    )
    for entries, sizes in ((1, (4, 8)), (2, (7, 5)), (3, (13, 3)), (16, (4, 4)), (101, (24, 8)), (600, (4, 8)))
]  # fmt: skip


@pytest.mark.parametrize(("kind", "flags", "entries", "sizes"), HASHES)
def test_hash_tables(kind: str, flags: int, entries: int, sizes: tuple[int, int]) -> None:
    rng = random.Random(f"{kind} {flags} {entries}")
    live, ours = make(kind, *sizes, entries, flags)
    keys: list[bytes | None] = [
        number.to_bytes(4, "little").ljust(sizes[0], b"\7")[: sizes[0]] for number in range(max(4, entries * 8 // 5))
    ]
    for number in range(2500 if entries < 500 else 6000):
        text, theirs, mine = step(rng, live, ours, keys)
        assert mine == theirs, f"operation {number}: {text}"
    same_contents(live, ours)


@pytest.mark.parametrize("kind", ["ARRAY", "PERCPU_ARRAY"])
@pytest.mark.parametrize(("entries", "size"), [(1, 8), (5, 5), (64, 12)])
def test_arrays(kind: str, entries: int, size: int) -> None:
    rng = random.Random(entries)
    live, ours = make(kind, 4, size, entries)
    keys: list[bytes | None] = [number.to_bytes(4, "little") for number in range(entries + 2)]
    for number in range(2000):
        text, theirs, mine = step(rng, live, ours, keys)
        assert mine == theirs, f"operation {number}: {text}"
    same_contents(live, ours)


@pytest.mark.parametrize("key_size", [5, 8, 11, 20, 40])
@pytest.mark.parametrize("entries", [1, 3, 20, 200])
def test_tries(key_size: int, entries: int) -> None:
    rng = random.Random(key_size * entries)
    live, ours = make("LPM_TRIE", key_size, 8, entries, NO_PREALLOC)
    keys: list[bytes | None] = []
    for _ in range(2 * entries + 2):
        bits = rng.randrange((key_size - 4) * 8 + 2)
        data = bytearray(rng.choice((bytes(36), b"\x0a\1\2\3" * 9, b"\xff" * 36, rng.randbytes(36)))[: key_size - 4])
        data[rng.randrange(len(data))] ^= rng.choice((0, 1, 2, 4, 8, 16, 32, 64, 128))
        keys.append(bits.to_bytes(4, "little") + bytes(data))
    for number in range(2000):
        text, theirs, mine = step(rng, live, ours, keys)
        assert mine == theirs, f"operation {number}: {text}"
    same_contents(live, ours)


@pytest.mark.parametrize("kind", ["QUEUE", "STACK"])
@pytest.mark.parametrize(("entries", "size"), [(1, 4), (7, 5), (64, 16)])
def test_queues(kind: str, entries: int, size: int) -> None:
    rng = random.Random(entries)
    live, ours = make(kind, 0, size, entries)
    for number in range(3000):
        text, theirs, mine = step(rng, live, ours, [None])
        assert mine == theirs, f"operation {number}: {text}"
    while (theirs := answer(live.lookup_and_delete)) != -2:
        assert answer(ours.lookup_and_delete) == theirs
    assert len(ours) == 0
    live.close()


@pytest.mark.parametrize("size", [2, 4, 7, 8, 13, 20])
@pytest.mark.parametrize(("entries", "hashes"), [(1, 0), (10, 1), (100, 3), (1000, 15)])
def test_bloom_filters_have_the_same_false_positives(size: int, entries: int, hashes: int) -> None:
    rng = random.Random(size)
    live, ours = make("BLOOM_FILTER", 0, size, entries, ZERO_SEED, extra=hashes)
    for _ in range(1500):
        value = rng.randrange(entries * 4).to_bytes(size, "little")
        if rng.random() < 0.3:
            assert answer(live.update, None, value) == answer(ours.update, None, value) == None  # noqa: E711
        else:
            theirs = answer(lambda v: live.lookup(value=v), value)
            assert answer(lambda v: ours.lookup(value=v), value) == theirs
    live.close()


BATCHES = [("HASH", ZERO_SEED), ("PERCPU_HASH", ZERO_SEED), ("LRU_HASH", ZERO_SEED),
           ("LRU_PERCPU_HASH", ZERO_SEED | OWN_LISTS), ("ARRAY", 0), ("PERCPU_ARRAY", 0)]  # fmt: skip


@pytest.mark.parametrize(("kind", "flags"), BATCHES)
@pytest.mark.parametrize("entries", [1, 4, 30, 200])
def test_batches(kind: str, flags: int, entries: int) -> None:
    rng = random.Random(entries)
    live, ours = make(kind, 4, 8, entries, flags)

    def pairs(count: int) -> tuple[list[bytes], list[bytes]]:
        keys = [rng.randrange(entries * 2).to_bytes(4, "little") for _ in range(count)]
        return keys, [rng.randbytes(live.value_size) for _ in keys]

    for _ in range(40):
        keys, values = pairs(rng.randrange(1, entries + 2))
        theirs, mine = live.update_batch(keys, values), ours._update_batch(keys, values, 0)
        assert (mine.errno, mine.count) == (theirs.errno, theirs.count)
        count, remove, cursor = rng.choice((1, 2, 3, 5, entries, entries + 5)), rng.random() < 0.2, None
        while True:
            theirs = live.lookup_batch(cursor, count, remove=remove)
            mine = ours._lookup_batch(cursor, count, 0, remove=remove)
            assert (mine.errno, mine.keys, mine.values) == (theirs.errno, theirs.keys, theirs.values)
            if theirs.errno or not theirs.count:
                break
            assert mine.cursor == theirs.cursor
            cursor = theirs.cursor
        theirs, mine = live.delete_batch(keys[:2]), ours._delete_batch(keys[:2], 0)
        assert (mine.errno, mine.count) == (theirs.errno, theirs.count)
    same_contents(live, ours)
