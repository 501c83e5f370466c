"""Addresses of the machine: a 64-bit pointer is a region number in the upper half and an offset in the lower.

resolve() turns it into a machine address after checking region, bounds and rights, so no program, verified or not, can
reach anything but its own stack, context and maps. Region 0 is never valid: null and small numbers fault.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import BY_NAME, COLUMN
from pktbpf.engine.arith import M8, M16, M32, U0, U32, swap16
from pktbpf.hot import Ints, Scalar, hot, peek8, peek16, peek32, peek64, poke8, poke16, poke32, poke64, words_at
from pktbpf.maps.layout import RIGHTS, WIDTH

STACK_REGION, CONTEXT_REGION = 1, 2
# 3 is the scratch memory of callbacks (control_helpers); 4 are the bytes of the packet, read through dynptrs only.
PACKET_REGION = 4
READ, WRITE = 1, 2

STACK_BASE = np.uint64(STACK_REGION << 32)
CONTEXT_BASE = np.uint64(CONTEXT_REGION << 32)

S1, S2, S4, S8 = (np.uint64(n) for n in (1, 2, 4, 8))
CB_BEGIN, CB_END = np.uint64(48), np.uint64(68)
SK = np.uint64(168)
U3 = np.uint64(3)
_SHIFT = np.uint64(3)
REGION_BYTES, _RIGHTS = np.uint64(8 * WIDTH), np.uint64(8 * RIGHTS)
WORK = 64

# Fields by their 4-byte offset, as plain numbers for the compiled code.
LEN, PKT_TYPE, MARK, QUEUE = (BY_NAME[n].offset for n in ("len", "pkt_type", "mark", "queue_mapping"))
PROTOCOL, VLAN_PROTO, NAPI_ID = (BY_NAME[n].offset for n in ("protocol", "vlan_proto", "napi_id"))
_NARROW = np.zeros(48, dtype=np.uint64)  # bytes of the skb's own field behind each 4-byte slot; 0: not readable
_COLUMN = np.full(48, -1, dtype=np.int64)
for _name, _field in BY_NAME.items():
    if _field.column is not None or _name == "len":
        _NARROW[_field.offset // 4] = 4 if _field.bits == 32 else 2 if _field.bits == 16 else 1
        _COLUMN[_field.offset // 4] = COLUMN[_field.column] if _field.column else -1
MIN_NAPI_ID = np.uint64(257)  # below it the kernel reports 0; one more than the number of possible processors


@hot
def resolve(address: Scalar, size: Scalar, need: Scalar, table: Scalar, count: Scalar) -> Scalar:
    """Machine address of `size` bytes at `address`, 0 when they may not be touched. table: machine address of `count`
    rows of WIDTH words, base, length and rights of a region first."""
    region = address >> U32
    offset = address & M32
    if region < count:
        row = table + region * REGION_BYTES
        length = peek64(row + S8)
        if size <= length and offset <= length - size and peek64(row + _RIGHTS) & need == need:
            return peek64(row) + offset
    return U0


@hot
def load(place: Scalar, size: Scalar) -> Scalar:
    """Little-endian value of 1, 2, 4 or 8 bytes at a machine address."""
    if size == S4:
        return peek32(place)
    if size == S8:
        return peek64(place)
    return peek16(place) if size == S2 else peek8(place)


@hot
def store(place: Scalar, size: Scalar, value: Scalar) -> None:
    """Store the low 1, 2, 4 or 8 bytes at a machine address."""
    if size == S4:
        poke32(place, value)
    elif size == S8:
        poke64(place, value)
    elif size == S2:
        poke16(place, value)
    else:
        poke8(place, value)


@hot
def context_load(offset: Scalar, size: Scalar, meta: Ints, shown: Scalar, length: Scalar, context: Scalar) -> Scalar:
    """(value, 1) of a context read, (0, 0) where a socket filter may not read. shown: the packet's row of meta;
    context: machine address of the memory behind cb.

    A read narrower than the skb's own field is shifted to its bytes; one that is not gets the whole field at whatever
    offset (bpf_convert_ctx_access reports the field's own width as target size).
    """
    if offset >= CB_BEGIN and offset + size <= CB_END:
        return load(context + offset, size), 1
    if offset == SK and size == S8:
        return U0, 1
    slot = offset // S4
    if offset & (size - np.uint64(1)) or size > S4 or slot >= np.uint64(48) or _NARROW[slot] == U0:
        return U0, 0
    column = _COLUMN[slot]
    value = np.uint64(length) if column < 0 else np.uint64(meta[shown, column]) & M32
    if slot == np.uint64(PROTOCOL // 4) or slot == np.uint64(VLAN_PROTO // 4):
        value = swap16(value)
    elif slot == np.uint64(NAPI_ID // 4) and value < MIN_NAPI_ID:
        value = U0
    if size < _NARROW[slot]:
        value = value >> ((offset & U3) << _SHIFT)
        return value & (M8 if size == S1 else M16), 1
    if _NARROW[slot] == S2:
        value &= M16
    return value, 1


# --- the block through which helpers reach everything ---------------------------------------------------------------
# Passing arrays to a compiled function costs seven words each; helpers get one machine address instead, of uint64s.
(
    B_REGS, B_REGIONS, B_COUNT, B_META, B_DATA, B_LENGTH, B_CAPTURED, B_HEAD, B_MAC, B_NETWORK, B_STATE, B_FUNCTIONS,
    B_LAST, B_WORK,
) = (
    np.uint64(8 * n) for n in range(14)
)
BLOCK = 16


@hot
def charge(block: Scalar, size: Scalar) -> None:
    """Count `size` bytes that a helper goes through; WORK of them cost as much of the budget as an instruction."""
    poke64(block + B_WORK, peek64(block + B_WORK) + size)


@hot
def argument(block: Scalar, number: Scalar) -> Scalar:
    """Register `number` (uint64) of the running program."""
    return peek64(peek64(block + B_REGS) + number * S8)


@hot
def set_argument(block: Scalar, number: Scalar, value: Scalar) -> None:
    """Give the running program's register `number` (uint64) another value."""
    poke64(peek64(block + B_REGS) + number * S8, value)


@hot
def metadata(block: Scalar, column: Scalar) -> Scalar:
    """A metadata column (plain number) of the running packet, as int64."""
    return np.int64(peek64(peek64(block + B_META) + np.uint64(column) * S8))


@hot
def region_row(block: Scalar, region: Scalar) -> Scalar:
    """Machine address of a region's row; the caller knows that there is one."""
    return peek64(block + B_REGIONS) + region * REGION_BYTES


@hot
def map_row(block: Scalar, region: Scalar) -> Scalar:
    """The same as an array of WIDTH words, as maps take it. It owns nothing: a slice of the table would count
    references, two locked additions a time."""
    return words_at(region_row(block, region), WIDTH)


@hot
def reach(address: Scalar, size: Scalar, need: Scalar, block: Scalar) -> Scalar:
    """resolve() by way of the block."""
    return resolve(address, size, need, peek64(block + B_REGIONS), peek64(block + B_COUNT))
