"""Bodies of the helpers of the reference engine, by name; kernel/bpf/helpers.c, ringbuf.c and net/core/filter.c.

Each takes the world, the machine and r1 to r5, and answers with r0 (any Python int, taken modulo 2**64) or a walk.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pktbpf.abi.context import UNSET
from pktbpf.engine import reference_text as text
from pktbpf.engine.base import Fault
from pktbpf.engine.reference_packet import Faulted
from pktbpf.engine.reference_world import (
    E2BIG,
    EFAULT,
    EINVAL,
    LOOP_LIMIT,
    PACKET,
    READ,
    U32,
    U64,
    WRITE,
    Answer,
    Timer,
    World,
)
from pktbpf.engine.trace import TraceRecord
from pktbpf.maps import dispatch_more, perf, ringbuf
from pktbpf.maps.elements import place
from pktbpf.maps.face import Map

if TYPE_CHECKING:
    from pktbpf.engine.reference_extended import Machine

Body = Callable[..., Answer]
BODIES: dict[str, Body] = {}
EBUSY, EDEADLK = -16, -35
_TICK, _FIRST_TICK = 4_000_000, (1 << 32) - 300 * 250
_NEVER = (1 << 63) - 1


def helper(function: Body) -> Body:
    """Enter a body under its own name."""
    BODIES[function.__name__] = function
    return function


# --- maps


@helper
def map_lookup_elem(w: World, m: Machine, pointer: int, key: int, *_: int) -> int:
    found = w.map_of(pointer)
    at, held = place(m.read(key, found.key_size))
    value = int(dispatch_more.lookup(found.row, np.uint64(found.number), at, np.uint64(m.cpu)))
    del held
    return value


@helper
def map_lookup_percpu_elem(w: World, m: Machine, pointer: int, key: int, cpu: int, *_: int) -> int:
    found = w.map_of(pointer)
    at, held = place(m.read(key, found.key_size))
    value = int(dispatch_more.lookup_percpu(found.row, np.uint64(found.number), at, np.uint64(cpu & U32)))
    del held
    return value


@helper
def per_cpu_ptr(w: World, m: Machine, pointer: int, cpu: int, *_: int) -> int:
    return w.copy_of(pointer, cpu & U32)


@helper
def this_cpu_ptr(w: World, m: Machine, pointer: int, *_: int) -> int:
    return w.copy_of(pointer, m.cpu)


@helper
def map_update_elem(w: World, m: Machine, pointer: int, key: int, value: int, flags: int, _: int) -> int:
    found = w.map_of(pointer)
    (at, held), (data, also) = place(m.read(key, found.key_size)), place(m.read(value, found.value_size))
    m.work += found.value_size
    code = int(dispatch_more.update(found.row, at, data, np.uint64(flags), np.uint64(m.cpu)))
    del held, also
    return code


@helper
def map_delete_elem(w: World, m: Machine, pointer: int, key: int, *_: int) -> int:
    found = w.map_of(pointer)
    at, held = place(m.read(key, found.key_size))
    code = int(dispatch_more.delete(found.row, at))
    del held
    return code


@helper
def map_push_elem(w: World, m: Machine, pointer: int, value: int, flags: int, *_: int) -> int:
    found = w.map_of(pointer)
    data, held = place(m.read(value, found.value_size))
    code = int(dispatch_more.push(found.row, data, np.uint64(flags)))
    del held
    return code


def _get(found: Map, m: Machine, value: int, operation: Any) -> int:
    out = ctypes.create_string_buffer(m.read(value, found.value_size, WRITE), found.value_size + 8)
    code = int(operation(found.row, np.uint64(ctypes.addressof(out))))
    m.write(value, out.raw[: found.value_size])
    return code


@helper
def map_pop_elem(w: World, m: Machine, pointer: int, value: int, *_: int) -> int:
    return _get(w.map_of(pointer), m, value, dispatch_more.pop)


@helper
def map_peek_elem(w: World, m: Machine, pointer: int, value: int, *_: int) -> int:
    return _get(w.map_of(pointer), m, value, dispatch_more.peek)


# --- the packet, time, identity


def _packet_bytes(m: Machine, offset: int, to: int, size: int) -> int:
    packet = m.packet
    if offset + size > packet.length:
        m.write(to, bytes(size))
        return EFAULT
    if offset + size > packet.captured or offset < -packet.base:
        raise Faulted(Fault.INDETERMINATE)
    m.write(to, packet.buffer[packet.base + offset : packet.base + offset + size])
    return 0


@helper
def skb_load_bytes(w: World, m: Machine, skb: int, offset: int, to: int, size: int, _: int) -> int:
    size, offset = size & U32, offset & U32
    m.read(to, size, WRITE)
    if offset >> 31:
        m.write(to, bytes(size))
        return EFAULT
    return _packet_bytes(m, offset, to, size)


@helper
def skb_load_bytes_relative(w: World, m: Machine, skb: int, offset: int, to: int, size: int, header: int) -> int:
    size, offset, header = size & U32, offset & U32, header & U32
    m.read(to, size, WRITE)
    mac, network = m.packet.column("mac_offset"), m.packet.column("network_offset")
    if offset > 0xFFFF or header > 1 or (header == 0 and mac == UNSET):
        m.write(to, bytes(size))
        return EFAULT
    start = mac if header == 0 else 0 if network == UNSET else network
    return _packet_bytes(m, start + offset, to, size)


def _since_boot(w: World, m: Machine) -> int:
    return m.now - w.env.boot_time


for _name in ("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns"):
    BODIES[_name] = lambda w, m, *_: _since_boot(w, m)
BODIES["ktime_get_tai_ns"] = lambda w, m, *_: m.now
BODIES["jiffies64"] = lambda w, m, *_: (_since_boot(w, m) & (1 << 64) - 1) // _TICK + _FIRST_TICK
BODIES["get_prandom_u32"] = lambda w, m, *_: w.random()
BODIES["get_smp_processor_id"] = lambda w, m, *_: m.cpu
BODIES["get_numa_node_id"] = BODIES["spin_lock"] = BODIES["spin_unlock"] = lambda w, m, *_: 0
BODIES["get_socket_cookie"] = lambda w, m, *_: w.env.socket_cookie
BODIES["get_socket_uid"] = lambda w, m, *_: w.env.socket_uid
BODIES["get_netns_cookie"] = lambda w, m, *_: w.env.netns_cookie


# --- callbacks


@helper
def loop(w: World, m: Machine, count: int, function: int, context: int, flags: int, _: int) -> Answer:
    m.target = w.function(m, function)
    if flags:
        return EINVAL
    if count & U32 > LOOP_LIMIT:
        return E2BIG & U32  # the loop stands in the place of the call, and loads 32 bits
    return w.loop(count & U32, context)


@helper
def for_each_map_elem(w: World, m: Machine, pointer: int, function: int, context: int, flags: int, _: int) -> Answer:
    m.target = w.function(m, function)
    found = w.map_of(pointer)
    return EINVAL if flags else w.each(m, found, context, m.cpu)


@helper
def user_ringbuf_drain(w: World, m: Machine, pointer: int, function: int, context: int, flags: int, _: int) -> Answer:
    m.target = w.function(m, function)
    found = w.map_of(pointer, "USER_RINGBUF")
    return EINVAL if flags & ~3 else w.drain(m, found, context)


# --- ring buffers, events, dynptrs


@helper
def ringbuf_output(w: World, m: Machine, pointer: int, data: int, size: int, flags: int, _: int) -> int:
    found = w.map_of(pointer, "RINGBUF")
    at, held = place(m.read(data, size))
    code = int(ringbuf.output(found.row, at, np.uint64(size), np.uint64(flags)))
    del held
    return code


@helper
def ringbuf_reserve(w: World, m: Machine, pointer: int, size: int, flags: int, *_: int) -> int:
    found = w.map_of(pointer, "RINGBUF")
    return int(ringbuf.reserve(found.row, np.uint64(found.number), np.uint64(size), np.uint64(flags)))


def _commit(w: World, record: int, discard: bool) -> int:
    found = w.maps.get(record >> 32)
    if found is None or found.kind != "RINGBUF":
        raise Faulted(Fault.CALL)
    if not 8 <= record & U32 <= 2 * found.max_entries:
        raise Faulted(Fault.MEMORY)
    ringbuf.commit(found.row, np.uint64(record & U32), discard)
    return 0


BODIES["ringbuf_submit"] = lambda w, m, record, *_: _commit(w, record, False)
BODIES["ringbuf_discard"] = lambda w, m, record, *_: _commit(w, record, True)
BODIES["ringbuf_query"] = lambda w, m, pointer, what, *_: int(
    ringbuf.query(w.map_of(pointer, "RINGBUF").row, np.uint64(what))
)


@helper
def perf_event_output(w: World, m: Machine, skb: int, pointer: int, flags: int, data: int, size: int) -> int:
    found = w.map_of(pointer, "PERF_EVENT_ARRAY")
    raw = m.read(data, size)
    extra = flags >> 32 & 0xFFFFF
    if flags >> 52:
        return EINVAL
    if extra > m.packet.length:
        return EFAULT
    if extra > m.packet.captured:
        raise Faulted(Fault.INDETERMINATE)
    packet = m.packet.buffer[m.packet.base : m.packet.base + extra]
    (at, held), (tail, also) = place(raw), place(packet)
    time, count = np.uint64(m.now & U64), np.uint64(size)
    code = int(perf.output(found.row, np.uint64(flags), np.uint64(m.cpu), time, at, count, tail))
    del held, also
    return code


def _put(m: Machine, at: int, pointer: int, kind: int, size: int) -> None:
    m.write(at, struct.pack("<QII", pointer, kind << 28 | size, 0))


@helper
def dynptr_from_mem(w: World, m: Machine, data: int, size: int, flags: int, at: int, _: int) -> int:
    wrong = E2BIG if size & U32 >= 1 << 24 else EINVAL if flags else 0
    _put(m, at, 0, 0, 0) if wrong else _put(m, at, data, 1, size & U32)
    return wrong


@helper
def ringbuf_reserve_dynptr(w: World, m: Machine, pointer: int, size: int, flags: int, at: int, _: int) -> int:
    found = w.map_of(pointer, "RINGBUF")
    _put(m, at, 0, 0, 0)
    if flags or size & U32 >= 1 << 24:
        return EINVAL if flags else E2BIG
    record = ringbuf_reserve(w, m, pointer, size & U32, 0)
    if not isinstance(record, int) or not record:
        return EINVAL
    assert found is not None
    _put(m, at, record, 2, size & U32)
    return 0


def _give_back(w: World, m: Machine, at: int, discard: bool) -> int:
    record = struct.unpack("<QII", m.read(at, 16, WRITE))[0]
    _put(m, at, 0, 0, 0)
    return _commit(w, record, discard) if record else 0


BODIES["ringbuf_submit_dynptr"] = lambda w, m, at, *_: _give_back(w, m, at, False)
BODIES["ringbuf_discard_dynptr"] = lambda w, m, at, *_: _give_back(w, m, at, True)


def _inside(m: Machine, at: int, offset: int, size: int) -> tuple[int, bool]:
    """(pointer, whether it is inside) of bytes of a dynptr; pointer 0 for a null dynptr."""
    data, have, start = struct.unpack("<QII", m.read(at, 16))
    return (data + start + offset if data else 0), size <= have & 0xFFFFFF and offset <= (have & 0xFFFFFF) - size


def _read_only(m: Machine, at: int) -> bool:
    return bool(struct.unpack("<I", m.read(at + 8, 4))[0] >> 31)


@helper
def dynptr_read(w: World, m: Machine, to: int, size: int, at: int, offset: int, flags: int) -> int:
    pointer, inside = _inside(m, at, offset & U32, size)
    m.read(to, size, WRITE)
    if not pointer or flags:
        return EINVAL
    if not inside:
        return E2BIG
    if pointer >> 32 == PACKET and (pointer & U32) + size > m.packet.captured:
        raise Faulted(Fault.INDETERMINATE)
    m.write(to, m.read(pointer, size))
    return 0


@helper
def dynptr_write(w: World, m: Machine, at: int, offset: int, source: int, size: int, flags: int) -> int:
    pointer, inside = _inside(m, at, offset & U32, size)
    data = m.read(source, size)
    if not pointer or _read_only(m, at):
        return EINVAL
    if not inside:
        return E2BIG
    if flags:
        return EINVAL
    m.write(pointer, data)
    return 0


@helper
def dynptr_data(w: World, m: Machine, at: int, offset: int, size: int, *_: int) -> int:
    pointer, inside = _inside(m, at, offset & U32, size & U32)
    return pointer if inside and not _read_only(m, at) else 0


# --- text


@helper
def strncmp(w: World, m: Machine, left: int, size: int, right: int, *_: int) -> int:
    a = m.read(left, size & U32)
    for index, x in enumerate(a):
        y = m.read(right + index, 1)[0]
        if x != y:
            return -1 if x < y else 1
        if not x:
            return 0
    return 0


def _number(m: Machine, source: int, size: int, flags: int, to: int, signed: bool) -> int:
    raw = m.read(source, size & U32)
    m.write(to, bytes(8))
    try:
        used, value = text.parse(raw, flags if not flags & ~0x1F else -1)
    except text.Refused as refused:
        return -refused.errno
    if signed and not -(1 << 63) <= value < 1 << 63:
        return -text.ERANGE
    if not signed and raw.lstrip(bytes((9, 10, 11, 12, 13, 32, 160)))[:1] == b"-":
        return EINVAL
    m.write(to, (value & (1 << 64) - 1).to_bytes(8, "little"))
    return used


BODIES["strtol"] = lambda w, m, a, b, c, d, e: _number(m, a, b, c, d, True)
BODIES["strtoul"] = lambda w, m, a, b, c, d, e: _number(m, a, b, c, d, False)


def _key(w: World) -> int:
    return w.env.seed * 0x9E3779B97F4A7C15 + 1 & (1 << 64) - 1


def _arguments(m: Machine, pointer: int, size: int) -> list[int] | None:
    if size % 8 or size > 96 or (size and not pointer):
        return None
    return [value for (value,) in struct.iter_unpack("<Q", m.read(pointer, size) if size else b"")]


@helper
def snprintf(w: World, m: Machine, to: int, size: int, format: int, args: int, length: int) -> int:
    size = size & U32
    if size:
        m.read(to, size, WRITE)
    raw = m.string(format, U32)
    values = _arguments(m, args, length & U32)
    if raw is None:
        raise Faulted(Fault.MEMORY)
    if values is None:
        return EINVAL
    try:
        pieces = text.prepare(raw, text.Arguments(values, m.string, m.peek))
    except text.Refused as refused:
        return -refused.errno
    written, whole = text.render(pieces, size, _key(w))
    if size:
        m.write(to, written)
    return whole + 1


def _trace(w: World, m: Machine, format: int, size: int, values: list[int] | None) -> int:
    raw = m.read(format, size & U32)
    if values is None or b"\0" not in raw:
        return EINVAL
    try:
        pieces = text.prepare(raw.split(b"\0")[0], text.Arguments(values, m.string, m.peek))
    except text.Refused as refused:
        return -refused.errno
    written, whole = text.render(pieces, 1024, _key(w))
    w.traces.append(TraceRecord(m.now, m.cpu, written.split(b"\0")[0]))
    return whole


BODIES["trace_printk"] = lambda w, m, format, size, a, b, c: _trace(w, m, format, size, [a, b, c])
BODIES["trace_vprintk"] = lambda w, m, format, size, args, length, _: _trace(
    w, m, format, size, _arguments(m, args, length & U32)
)


# --- timers and kernel pointers


@helper
def timer_init(w: World, m: Machine, pointer: int, array: int, clock: int, *_: int) -> int:
    if w.map_of(array, "HASH", "ARRAY", "LRU_HASH").number != pointer >> 32:
        raise Faulted(Fault.CALL)
    present = w.timer_of(pointer)
    if clock not in (0, 1, 7):
        return EINVAL
    if present is not None:
        return EBUSY
    number = next(n for n in range(1, len(w.timers) + 2) if n not in w.timers)
    w.timers[number] = Timer(pointer, clock)
    m.write(pointer, number.to_bytes(8, "little"))
    return 0


@helper
def timer_set_callback(w: World, m: Machine, pointer: int, function: int, *_: int) -> int:
    timer, slot = w.timer_of(pointer), w.function(m, function)
    if timer is None:
        return EINVAL
    assert m.program is not None
    timer.callback = (m.program, slot)
    return 0


@helper
def timer_start(w: World, m: Machine, pointer: int, wait: int, flags: int, *_: int) -> int:
    timer = w.timer_of(pointer)
    if flags > 3 or timer is None or timer.callback is None:
        return EINVAL
    base = m.now if not flags & 1 else 0 if timer.clock == 0 else w.env.boot_time
    w.starts += 1
    timer.expiry, timer.start = (_NEVER if wait > _NEVER else min(base + wait, _NEVER)), w.starts
    return 0


@helper
def timer_cancel(w: World, m: Machine, pointer: int, *_: int) -> int:
    timer = w.timer_of(pointer)
    if timer is None:
        return EINVAL
    if timer is w.running:
        return EDEADLK
    armed, timer.callback, timer.expiry = timer.expiry is not None, None, None
    return int(armed)


@helper
def kptr_xchg(w: World, m: Machine, at: int, pointer: int, *_: int) -> int:
    old = int.from_bytes(m.read(at, 8, READ | WRITE), "little")
    m.write(at, pointer.to_bytes(8, "little"))
    return old
