"""The compiled record walks: bytes of a window to columns, one call for a window full of packets.

Each walker gets data[begin:end] and fills columns from row `row` on until the window, the columns or the sound part of
the capture ends. state[NEXT] is where the next record begins, state[STATUS] why the walk stopped, state[DETAIL] and
state[DETAIL2] the numbers for the message. All lengths are u64 and compared before use; no byte outside of
data[begin:end] is read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pktbpf.hot import hot, load_be16, load_be32, load_le16, load_le32

NEXT, STATUS, DETAIL, DETAIL2, CLAMPED = range(5)
STATE_WORDS = 5

# Why a walk stopped. MORE: detail bytes from NEXT on are needed. FULL: no row left. SECTION and INTERFACE: a pcapng
# block for the caller. The rest is damage at NEXT.
MORE, FULL, SECTION, INTERFACE = 0, 1, 2, 3
BAD_CAPLEN, BAD_BLOCK_SHORT, BAD_BLOCK_ODD, BAD_BLOCK_LARGE, BAD_TRAILER, BAD_BODY, BAD_INTERFACE, BAD_SNAPLEN = range(
    4, 12
)

NORMAL, MAYBE_SWAPPED, SWAPPED = 0, 1, 2

# pcapng block types.
DESCRIPTION, OBSOLETE, SIMPLE, ENHANCED, SECTION_HEADER = 1, 2, 3, 6, 0x0A0D0D0A


@hot
def _u32(data: Any, at: Any, big: Any) -> Any:
    return load_be32(data, at) if big else load_le32(data, at)


@hot
def walk_pcap(
    data: Any, begin: Any, end: Any, row: Any, big: Any, header: Any, order: Any, tick: Any, snaplen: Any, largest: Any,
    start: Any, caplen: Any, wirelen: Any, timestamp: Any, state: Any,
) -> Any:  # fmt: skip
    """pcap records. header: 16 or 24 bytes. order: whether the two lengths may be swapped. tick: ns per fraction.
    A packet longer than snaplen is cut to it, one longer than `largest` is damage. Returns the row after the last."""
    at = np.uint64(begin)
    stop = np.uint64(end)
    head = np.uint64(header)
    most = np.uint64(largest)
    rows = len(start)
    n = row
    status = FULL
    detail = np.uint64(0)
    while n < rows:
        if stop - at < head:
            status = MORE
            detail = head
            break
        captured = _u32(data, at + np.uint64(8), big)
        wire = _u32(data, at + np.uint64(12), big)
        if order != NORMAL and (order == SWAPPED or captured > wire):
            captured, wire = wire, captured
        if captured > most:
            status = BAD_CAPLEN
            detail = captured
            break
        if stop - at - head < captured:
            status = MORE
            detail = head + captured
            break
        seconds = np.int64(_u32(data, at, big))
        fraction = np.int64(_u32(data, at + np.uint64(4), big))
        at += head
        start[n] = np.int64(at)
        caplen[n] = min(np.int64(captured), snaplen)
        wirelen[n] = np.int64(wire)
        timestamp[n] = seconds * np.int64(1_000_000_000) + fraction * tick
        at += captured
        n += 1
    state[NEXT] = np.int64(at)
    state[STATUS] = status
    state[DETAIL] = np.int64(detail)
    return n


# Columns of the interface table: uint64[n, 6]. FAST: ticks up to this times FACTOR fit into int64.
IF_SNAPLEN, IF_MODE, IF_FACTOR, IF_UNITS, IF_OFFSET, IF_FAST = range(6)
# How ticks become nanoseconds: times FACTOR, divided by FACTOR, or a binary fraction of 2**-FACTOR seconds.
TIMES, DIVIDED, BINARY = 0, 1, 2


@hot
def to_nanoseconds(ticks: Any, mode: Any, factor: Any, units: Any, offset: Any) -> Any:
    """Ticks since the epoch to (ns as int64, 1 if it did not fit and is the nearest that does). The fraction is
    rounded down. offset: int64 seconds to add. Exact for every resolution up to 10^-19 and 2^-63."""
    giga = np.uint64(1_000_000_000)
    seconds = ticks // units
    fraction = ticks % units
    if mode == np.uint64(TIMES):
        fraction = fraction * factor
    elif mode == np.uint64(DIVIDED):
        fraction = fraction // factor
    else:
        # fraction < 2**63 times 10**9 takes up to 93 bits: two 32-bit halves keep it exact.
        low = (fraction & np.uint64(0xFFFFFFFF)) * giga
        high = (fraction >> np.uint64(32)) * giga
        if factor >= np.uint64(32):
            fraction = (high + (low >> np.uint64(32))) >> (factor - np.uint64(32))
        else:
            fraction = low >> factor
    largest = np.uint64(9_223_372_035)  # whole seconds that fit with any fraction
    if offset < np.int64(0):
        back = np.uint64(-(offset + np.int64(1))) + np.uint64(1)
        if seconds < back:
            before = back - seconds
            if before > largest:
                return np.int64(-0x7FFFFFFFFFFFFFFF), np.int64(1)
            return np.int64(fraction) - np.int64(before) * np.int64(1_000_000_000), np.int64(0)
        seconds = seconds - back
    elif seconds <= largest:
        seconds = seconds + np.uint64(offset)
    if seconds > largest:
        return np.int64(0x7FFFFFFFFFFFFFFF), np.int64(1)
    return np.int64(seconds * giga + fraction), np.int64(0)


@hot
def _check_block(data: Any, at: Any, stop: Any, most: Any, big: Any) -> Any:
    """The block at `at`, eight bytes of it held, to (FULL when it is whole and sound, its length, its last length)."""
    total = _u32(data, at + np.uint64(4), big)
    none = np.uint64(0)
    if total < np.uint64(12):
        return BAD_BLOCK_SHORT, total, none
    if total & np.uint64(3):
        return BAD_BLOCK_ODD, total, none
    if total > most:
        return BAD_BLOCK_LARGE, total, none
    if stop - at < total:
        return MORE, total, none
    trailer = _u32(data, at + total - np.uint64(4), big)
    return (FULL if trailer == total else BAD_TRAILER), total, trailer


@hot
def _packet_fields(data: Any, at: Any, kind: Any, big: Any) -> Any:
    """A packet block's (interface, ticks, captured length, wire length), its fixed part being held."""
    if kind == np.uint64(SIMPLE):
        wire = _u32(data, at + np.uint64(8), big)
        return np.uint64(0), np.uint64(0), wire, wire
    place = at + np.uint64(8)
    if kind == np.uint64(ENHANCED):
        card = _u32(data, place, big)
    else:
        card = load_be16(data, place) if big else load_le16(data, place)
    ticks = (_u32(data, at + np.uint64(12), big) << np.uint64(32)) | _u32(data, at + np.uint64(16), big)
    return card, ticks, _u32(data, at + np.uint64(20), big), _u32(data, at + np.uint64(24), big)


@hot
def _check_packet(data: Any, at: Any, kind: Any, total: Any, table: Any, big: Any) -> Any:
    """A packet block to (FULL when it is sound, interface or detail, snaplen, ticks, captured length, wire length)."""
    none = np.uint64(0)
    fixed = np.uint64(12) if kind == np.uint64(SIMPLE) else np.uint64(28)
    if total < fixed + np.uint64(4):
        return BAD_BODY, kind, none, none, none, none
    card, ticks, captured, wire = _packet_fields(data, at, kind, big)
    if card >= np.uint64(len(table)):
        return BAD_INTERFACE, card, none, none, none, none
    snaplen = table[card, IF_SNAPLEN]
    if captured > snaplen:
        if kind != np.uint64(SIMPLE):
            return BAD_SNAPLEN, captured, snaplen, none, none, none
        captured = snaplen
    if total - fixed - np.uint64(4) < captured:
        return BAD_BODY, kind, none, none, none, none
    return FULL, card, snaplen, ticks, captured, wire


@hot
def walk_pcapng(
    data: Any, begin: Any, end: Any, row: Any, big: Any, largest: Any, table: Any, first_interface: Any,
    start: Any, caplen: Any, wirelen: Any, timestamp: Any, interface: Any, state: Any,
) -> Any:  # fmt: skip
    """pcapng blocks of one section. table: this section's interfaces; they are numbered from first_interface on over
    the whole capture. Blocks without packets are skipped; a section header or an interface ends the walk."""
    at, stop, most = np.uint64(begin), np.uint64(end), np.uint64(largest)
    rows = len(start)
    n = row
    status, detail, detail2 = FULL, np.uint64(0), np.uint64(0)
    while n < rows:
        if stop - at < np.uint64(8):
            status, detail = MORE, np.uint64(8)
            break
        kind = _u32(data, at, big)
        if kind == np.uint64(SECTION_HEADER):
            status = SECTION
            break
        status, detail, detail2 = _check_block(data, at, stop, most, big)
        if status == FULL and kind == np.uint64(DESCRIPTION):
            status = INTERFACE
        if status != FULL:
            break
        total = detail
        if kind != np.uint64(ENHANCED) and kind != np.uint64(SIMPLE) and kind != np.uint64(OBSOLETE):
            at += total
            continue
        status, detail, detail2, ticks, captured, wire = _check_packet(data, at, kind, total, table, big)
        if status != FULL:
            break
        clock = table[detail]
        if clock[IF_OFFSET] == np.uint64(0) and clock[IF_MODE] == np.uint64(TIMES) and ticks <= clock[IF_FAST]:
            timestamp[n] = np.int64(ticks * clock[IF_FACTOR])
        else:
            timestamp[n], clamped = to_nanoseconds(
                ticks, clock[IF_MODE], clock[IF_FACTOR], clock[IF_UNITS], np.int64(clock[IF_OFFSET])
            )
            state[CLAMPED] += clamped
        start[n] = np.int64(at + (np.uint64(12) if kind == np.uint64(SIMPLE) else np.uint64(28)))
        caplen[n], wirelen[n] = np.int64(captured), np.int64(wire)
        interface[n] = np.int32(first_interface + np.int64(detail))
        at += total
        n += 1
    state[NEXT], state[STATUS] = np.int64(at), status
    state[DETAIL], state[DETAIL2] = np.int64(detail), np.int64(detail2)
    return n
