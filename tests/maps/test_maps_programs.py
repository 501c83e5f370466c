"""The operations that programs use, against a program in the live kernel that does the same: look up, update, delete,
push and pop. Lookups of programs mark LRU entries, so final contents tell whether evictions agree."""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall
from pktbpf.kernel.maps import LiveMap, possible_cpus
from pktbpf.maps import dispatch_more
from pktbpf.maps.face import Map

pytestmark = pytest.mark.kernel
ZERO_SEED, NO_PREALLOC, OWN_LISTS = 64, 1, 2
LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK = range(1, 7)
_HELPER = {LOOKUP: 1, UPDATE: 2, DELETE: 3, PUSH: 87, POP: 88, PEEK: 89}
M64 = (1 << 64) - 1


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


def insn(code: int, registers: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, registers, off, imm)


def program(fd: int, operations: tuple[int, ...], key_offset: int) -> bytes:
    """Read (u32 operation, u32 flags, u64 value, 16 bytes of key) from the packet and do it; the answer is r0, or
    whether a lookup found something. key_offset: from the frame pointer."""
    body = insn(0xBF, 0x16) + insn(0xB7, 2, 0, 0) + insn(0xBF, 0xA3) + insn(0x07, 3, 0, -32) + insn(0xB7, 4, 0, 32)
    body += insn(0x85, 0, 0, 26) + insn(0x61, 0xA7, -32)
    for operation in operations:
        pushes = operation in (PUSH, POP, PEEK)
        steps = insn(0x18, 0x11, 0, fd) + insn(0)
        steps += insn(0xBF, 0xA2) + insn(0x07, 2, 0, -24 if pushes else key_offset)
        if operation == UPDATE:
            steps += insn(0xBF, 0xA3) + insn(0x07, 3, 0, -24) + insn(0x61, 0xA4, -28)
        if operation == PUSH:
            steps += insn(0x61, 0xA3, -28)
        steps += insn(0x85, 0, 0, _HELPER[operation])
        if operation == LOOKUP:
            steps += insn(0x15, 0, 1, 0) + insn(0xB7, 0, 0, 1)
        steps += insn(0x95)
        body += insn(0x55, 7, len(steps) // 8, operation) + steps
    return body + insn(0xB7, 0, 0, 77) + insn(0x95)


class Pair:
    """A map of each side, and one operation on both."""

    def __init__(self, kind: str, key_size: int, entries: int, flags: int, operations: tuple[int, ...]):
        self.live = LiveMap(kind, key_size, 8, entries, flags)
        self.ours = Map(kind, key_size, 8, entries, flags, possible_cpus=possible_cpus())
        self.cpu = self.ours.cpu = min(os.sched_getaffinity(0))
        self.fd = syscall.load_program(program(self.live.fd, operations, -16))

    def both(self, operation: int, flags: int, value: bytes, key: bytes) -> tuple[int, int]:
        packet = bytes(14) + struct.pack("<II", operation, flags) + value + key.ljust(16, b"\0")
        theirs, _ = syscall.run_once(self.fd, packet)
        held, data = ctypes.create_string_buffer(key, 32), ctypes.create_string_buffer(value, 32)
        at, place = np.uint64(ctypes.addressof(held)), np.uint64(ctypes.addressof(data))
        row, cpu, number = self.ours.row, np.uint64(self.cpu), np.uint64(self.ours.number)
        if operation == LOOKUP:
            mine = int(int(dispatch_more.lookup(row, number, at, cpu)) != 0)
        elif operation == UPDATE:
            mine = int(dispatch_more.update(row, at, place, np.uint64(flags), cpu))
        elif operation == DELETE:
            mine = int(dispatch_more.delete(row, at))
        elif operation == PUSH:
            mine = int(dispatch_more.push(row, place, np.uint64(flags)))
        else:
            mine = int((dispatch_more.pop if operation == POP else dispatch_more.peek)(row, place))
        return theirs, mine & 0xFFFFFFFF

    def close(self) -> None:
        os.close(self.fd)
        self.live.close()


TABLES = [
    ("HASH", 4, ZERO_SEED), ("PERCPU_HASH", 4, ZERO_SEED), ("LRU_HASH", 4, ZERO_SEED),
    ("LRU_HASH", 4, ZERO_SEED | OWN_LISTS), ("LRU_PERCPU_HASH", 4, ZERO_SEED),
    ("LRU_PERCPU_HASH", 4, ZERO_SEED | OWN_LISTS), ("LPM_TRIE", 8, NO_PREALLOC), ("ARRAY", 4, 0),
    ("PERCPU_ARRAY", 4, 0),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "key_size", "flags"), TABLES)
@pytest.mark.parametrize("entries", [2, 10, 130, 700])
def test_tables(kind: str, key_size: int, flags: int, entries: int) -> None:
    rng = random.Random(f"{kind} {flags} {entries}")
    pair = Pair(kind, key_size, entries, flags, (LOOKUP, UPDATE, DELETE))
    for number in range(max(1500, entries * 6)):
        # A few keys are asked for often, so that reference bits decide.
        wanted = rng.randrange(entries * 2) if rng.random() < 0.6 else rng.randrange(max(2, entries // 3))
        key = wanted.to_bytes(4, "little")
        if kind == "LPM_TRIE":
            key = rng.choice((8, 16, 24, 32, 33)).to_bytes(4, "little") + wanted.to_bytes(4, "big")
        operation = rng.choices((LOOKUP, UPDATE, DELETE), (5, 5, 1))[0]
        theirs, mine = pair.both(operation, rng.choice((0, 0, 0, 0, 1, 2, 3)), rng.randbytes(8), key)
        assert mine == theirs, f"operation {number}: {operation} {key!r}"
    assert list(pair.ours.raw_items()) == list(pair.live.raw_items())
    pair.close()


@pytest.mark.parametrize("kind", ["QUEUE", "STACK"])
def test_queues(kind: str) -> None:
    rng = random.Random(kind)
    pair = Pair(kind, 0, 9, 0, (PUSH, POP, PEEK))
    for _ in range(2000):
        operation = rng.choice((PUSH, PUSH, POP, PEEK))
        theirs, mine = pair.both(operation, rng.choice((0, 0, 2, 1, 3)), rng.randbytes(8), b"")
        assert mine == theirs
    rest = []
    while len(pair.ours):
        rest.append(pair.ours.lookup_and_delete())
        assert pair.live.lookup_and_delete() == rest[-1]
    pair.close()
