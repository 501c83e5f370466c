"""Bodies of the kernel functions of the reference engine, by name; kernel/bpf/bpf_iter.c and kernel/bpf/helpers.c.

Each takes the world, the machine and r1 to r5, and answers with r0; an int of the kernel is 32 bits, zero-extended.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from pktbpf.engine.base import Fault
from pktbpf.engine.rare_strings import MOST_STEPS
from pktbpf.engine.reference_extended import CONTEXT, STACK, signed
from pktbpf.engine.reference_packet import Faulted
from pktbpf.engine.reference_world import PACKET, SCRATCH, U32, WRITE, World

if TYPE_CHECKING:
    from pktbpf.engine.reference_extended import Machine

BODIES: dict[str, Callable[..., int]] = {}
ENOENT, E2BIG, EFAULT, EINVAL, ERANGE = (-n & U32 for n in (2, 7, 14, 22, 34))
LOOPS, WORDS, LONGEST = 8 << 20, 511, 65536
SKB, READ_ONLY, SIZE = 3 << 28, 1 << 31, (1 << 24) - 1
_HASHES = ("HASH", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH", "HASH_OF_MAPS")


def kfunc(function: Callable[..., int]) -> Callable[..., int]:
    """Enter a body under its own name."""
    BODIES[f"bpf_{function.__name__}"] = function
    return function


for _name in ("rcu_read_lock", "rcu_read_unlock", "preempt_disable", "preempt_enable", "local_irq_save",
              "local_irq_restore", "iter_num_destroy", "iter_bits_destroy"):  # fmt: skip
    BODIES[f"bpf_{_name}"] = lambda w, m, *_: 0


# --- iterators


@kfunc
def iter_num_new(w: World, m: Machine, it: int, start: int, end: int, *_: int) -> int:
    first, last = signed(start, 32), signed(end, 32)
    wrong = EINVAL if first > last else E2BIG if last - first > LOOPS else 0
    m.write(it, bytes(8) if wrong else struct.pack("<II", (first - 1) & U32, last & U32))
    return wrong


@kfunc
def iter_num_next(w: World, m: Machine, it: int, *_: int) -> int:
    current, end = struct.unpack("<ii", m.read(it, 8, WRITE))
    following = signed(current + 1, 32)
    m.write(it, bytes(8) if following >= end else struct.pack("<ii", following, end))
    return 0 if following >= end else it


def _bits(m: Machine, it: int) -> tuple[int, int]:
    if it >> 32 != STACK:
        raise Faulted(Fault.MEMORY)
    return struct.unpack("<ii", m.read(it, 16, WRITE)[8:])


@kfunc
def iter_bits_new(w: World, m: Machine, it: int, source: int, count: int, *_: int) -> int:
    _bits(m, it)
    count &= U32
    m.write(it, struct.pack("<Qii", 0, 0, -1))
    if not source or not count:
        return EINVAL
    if count > WORDS:
        return E2BIG
    words = m.peek(source, 8 * count)
    if words is None:
        return EFAULT
    w.words[it] = words
    m.write(it + 8, struct.pack("<i", 64 * count))
    return 0


@kfunc
def iter_bits_next(w: World, m: Machine, it: int, *_: int) -> int:
    count, bit = _bits(m, it)
    if not 0 < count <= 64 * WORDS or not -1 <= bit < count:
        return 0
    number = int.from_bytes(w.words.get(it, b""), "little") >> bit + 1
    bit = bit + (number & -number).bit_length() if number else count
    m.write(it + 12, struct.pack("<i", min(bit, count)))
    return it + 12 if bit < count else 0


# --- dynptrs


def _dynptr(m: Machine, at: int) -> tuple[int, int, int]:
    """(pointer, size with flags, offset)"""
    return struct.unpack("<QII", m.read(at, 16))


def _inside(m: Machine, at: int, offset: int, size: int) -> int:
    """Pointer to bytes of a dynptr, 0 where they are not all inside."""
    data, have, start = _dynptr(m, at)
    if not data or size > have & SIZE or offset > (have & SIZE) - size:
        return 0
    if data == PACKET << 32 and have & 7 << 28 == SKB and start + offset + size > m.packet.captured:
        raise Faulted(Fault.INDETERMINATE)
    return data + start + offset


@kfunc
def dynptr_from_skb(w: World, m: Machine, skb: int, flags: int, at: int, *_: int) -> int:
    m.write(at, bytes(16) if flags else struct.pack("<QII", PACKET << 32, SKB | READ_ONLY | m.packet.length, 0))
    return EINVAL if flags else 0


@kfunc
def dynptr_adjust(w: World, m: Machine, at: int, start: int, end: int, *_: int) -> int:
    if at >> 32 != SCRATCH:
        m.read(at, 16, WRITE)
    data, have, offset = _dynptr(m, at)
    start, end = start & U32, end & U32
    if not data or start > end:
        return EINVAL
    if start > have & SIZE or end > have & SIZE:
        return ERANGE
    changed = struct.pack("<QII", data, have & ~SIZE | end - start, offset + start & U32)
    if at >> 32 == SCRATCH:  # the dynptr of a callback, which programs only read
        m.scratch[at & U32 : (at & U32) + 16] = changed
    else:
        m.write(at, changed)
    return 0


@kfunc
def dynptr_clone(w: World, m: Machine, at: int, to: int, *_: int) -> int:
    raw = m.read(at, 16)
    m.write(to, raw)
    return 0 if any(raw[:8]) else EINVAL


BODIES["bpf_dynptr_is_null"] = lambda w, m, at, *_: int(not _dynptr(m, at)[0])
BODIES["bpf_dynptr_is_rdonly"] = lambda w, m, at, *_: int(bool(_dynptr(m, at)[0]) and _dynptr(m, at)[1] >> 31)
BODIES["bpf_dynptr_size"] = lambda w, m, at, *_: _dynptr(m, at)[1] & SIZE if _dynptr(m, at)[0] else EINVAL


@kfunc
def dynptr_slice(w: World, m: Machine, at: int, offset: int, buffer: int, size: int, _: int) -> int:
    return _inside(m, at, offset & U32, size & U32)


@kfunc
def dynptr_memset(w: World, m: Machine, at: int, offset: int, size: int, byte: int, _: int) -> int:
    data, have, start = _dynptr(m, at)
    offset, size = offset & U32, size & U32
    if have & READ_ONLY:
        return EINVAL
    if size > have & SIZE or offset > (have & SIZE) - size:
        return E2BIG
    if data:
        m.work += size
        m.write(data + start + offset, bytes([byte & 255]) * size)
    return 0


@kfunc
def dynptr_copy(w: World, m: Machine, to: int, to_offset: int, at: int, offset: int, size: int) -> int:
    to_offset, offset, size = to_offset & U32, offset & U32, size & U32
    target, source = _dynptr(m, to), _dynptr(m, at)
    readonly = bool(target[1] & READ_ONLY)
    readable = _inside(m, at, offset, size)
    writable = 0 if readonly else _inside(m, to, to_offset, size)
    if readable and writable:
        m.write(writable, m.read(readable, size))
        return 0
    if readable:
        return EINVAL if not target[0] or readonly else E2BIG
    if writable:
        return EINVAL if not source[0] else E2BIG
    for (_, have, _start), begin in ((target, to_offset), (source, offset)):
        if size > have & SIZE or begin > (have & SIZE) - size:
            return E2BIG
    return EINVAL if size else 0


@kfunc
def map_sum_elem_count(w: World, m: Machine, pointer: int, *_: int) -> int:
    found = w.map_of(pointer)
    return len(found) if found.kind in _HASHES else 0


# --- strings


class _Stop(Exception):
    """The end of a string function, with the int it returns."""

    def __init__(self, answer: int):
        self.answer = answer & U32


def _byte(m: Machine, address: int) -> int:
    m.work += 1
    raw = None if address >> 32 == CONTEXT else m.peek(address, 1)
    if raw is None:
        raise _Stop(EFAULT)
    return raw[0]


def _string(body: Callable[..., int]) -> Callable[..., int]:
    def run(w: World, m: Machine, *args: int) -> int:
        try:
            return body(m, *args) & U32
        except _Stop as stop:
            return stop.answer

    BODIES[f"bpf_{body.__name__}"] = run
    return body


def _addresses(*pointers: int) -> None:
    if any(not pointer >> 32 for pointer in pointers):
        raise _Stop(ERANGE)


def _compare(m: Machine, left: int, right: int, fold: Callable[[int], int]) -> int:
    _addresses(left, right)
    for at in range(LONGEST):
        a, b = _byte(m, left + at), _byte(m, right + at)
        a, b = fold(a), fold(b)
        if a != b:
            return -1 if a < b else 1
        if not a:
            return 0
    return E2BIG


@_string
def strcmp(m: Machine, left: int, right: int, *_: int) -> int:
    return _compare(m, left, right, lambda byte: byte)


@_string
def strcasecmp(m: Machine, left: int, right: int, *_: int) -> int:
    return _compare(m, left, right, lambda byte: byte + 32 if 65 <= byte <= 90 else byte)


@_string
def strnchr(m: Machine, text: int, count: int, wanted: int, *_: int) -> int:
    _addresses(text)
    for at in range(min(count, LONGEST)):
        byte = _byte(m, text + at)
        if byte == wanted & 255:
            return at
        if not byte:
            return ENOENT
    return E2BIG if count >= LONGEST else ENOENT


@_string
def strchr(m: Machine, text: int, wanted: int, *_: int) -> int:
    return strnchr(m, text, LONGEST, wanted)


@_string
def strchrnul(m: Machine, text: int, wanted: int, *_: int) -> int:
    _addresses(text)
    for at in range(LONGEST):
        if _byte(m, text + at) in (0, wanted & 255):
            return at
    return E2BIG


@_string
def strrchr(m: Machine, text: int, wanted: int, *_: int) -> int:
    _addresses(text)
    found = ENOENT
    for at in range(LONGEST):
        byte = _byte(m, text + at)
        if byte == signed(wanted, 32):
            found = at
        if not byte:
            return found
    return E2BIG


@_string
def strnlen(m: Machine, text: int, count: int, *_: int) -> int:
    _addresses(text)
    for at in range(min(count, LONGEST)):
        if not _byte(m, text + at):
            return at
    return E2BIG if count >= LONGEST else count


@_string
def strlen(m: Machine, text: int, *_: int) -> int:
    return strnlen(m, text, LONGEST)


def _member(m: Machine, byte: int, members: int) -> bool:
    for at in range(LONGEST):
        member = _byte(m, members + at)
        if member == byte:
            return True
        if not member:
            return False
    raise _Stop(E2BIG)


def _span(m: Machine, text: int, members: int, inside: bool) -> int:
    _addresses(text, members)
    for at in range(LONGEST):
        byte = _byte(m, text + at)
        if not byte or _member(m, byte, members) != inside:
            return at
    return E2BIG


@_string
def strspn(m: Machine, text: int, members: int, *_: int) -> int:
    return _span(m, text, members, True)


@_string
def strcspn(m: Machine, text: int, members: int, *_: int) -> int:
    return _span(m, text, members, False)


@_string
def strnstr(m: Machine, text: int, part: int, length: int, *_: int) -> int:
    _addresses(text, part)
    steps = 0
    for at in range(LONGEST):
        inner = 0
        while at + inner <= length and inner < LONGEST:
            wanted = _byte(m, part + inner)
            if not wanted:
                return at
            if at + inner == length:
                break
            byte = _byte(m, text + at + inner)
            if not byte:
                return ENOENT
            if byte != wanted:
                break
            inner += 1
        steps += 2 * inner
        if steps > MOST_STEPS:
            raise Faulted(Fault.BUDGET)
        if inner == LONGEST:
            return E2BIG
        if at + inner == length:
            return ENOENT
    return E2BIG


@_string
def strstr(m: Machine, text: int, part: int, *_: int) -> int:
    return strnstr(m, text, part, LONGEST)
