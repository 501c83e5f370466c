"""HASH and PERCPU_HASH: chains over flat slots (kernel/bpf/hashtab.c).

Slots count from 1; 0 ends a chain. Freed slots are taken again last in, first out, and replacing a value takes the
spare slot and makes the old one the spare, as the kernel's preallocated tables do; so what a stale pointer sees is the
same. STATE: number of entries, head of the free list, slots ever used, the spare slot.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek32, peek64, poke32, poke64
from pktbpf.maps.jhash import jhash
from pktbpf.maps.layout import (
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_NOEXIST,
    CPUS,
    E2BIG,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    HEADS_AT,
    KEY_SIZE,
    KEY_STRIDE,
    KEYS_AT,
    LINKS_AT,
    MASK,
    MAX_ENTRIES,
    SLOTS,
    SPIN_LOCK,
    STATE_AT,
    STRIDE,
    VALUES_AT,
    clear,
    clear_special,
    copy,
    copy_value,
    equal,
    pointer,
)

COUNT, FREE, USED, SPARE = (np.uint64(8 * n) for n in range(4))
_U0, _U1, _U4 = (np.uint64(n) for n in (0, 1, 4))
_PLAIN = np.uint64(0xFFFFFFFFFFFFFFFF ^ BPF_F_LOCK)
_LOCK, _EXIST, _NOEXIST = np.uint64(BPF_F_LOCK), np.uint64(BPF_EXIST), np.uint64(BPF_NOEXIST)


@hot
def key_of(row: Words, slot: Scalar) -> Scalar:
    """Machine address of a slot's key."""
    return row[KEYS_AT] + (slot - _U1) * row[KEY_STRIDE]


@hot
def value_offset(row: Words, slot: Scalar, cpu: Scalar) -> Scalar:
    """Offset of a slot's value for a processor in the map's value memory."""
    return ((slot - _U1) * row[CPUS] + cpu) * row[STRIDE]


@hot
def find(row: Words, key: Scalar, bucket: Scalar) -> Scalar:
    """Slot of a key in a bucket (machine address of its head), 0 for none."""
    slot = peek32(bucket)
    while slot != _U0:
        if equal(key_of(row, slot), key, row[KEY_SIZE]):
            return slot
        slot = peek32(row[LINKS_AT] + slot * _U4)
    return _U0


@hot
def bucket_of(row: Words, key: Scalar) -> Scalar:
    """Machine address of the head of the key's chain."""
    return row[HEADS_AT] + (jhash(key, row[KEY_SIZE], _U0) & row[MASK]) * _U4


@hot
def slot_of(row: Words, key: Scalar) -> Scalar:
    """Slot of a key, 0 for none."""
    return find(row, key, bucket_of(row, key))


@hot
def unlink(row: Words, bucket: Scalar, wanted: Scalar) -> None:
    """Take a slot that is in it out of a chain; one entry less."""
    place = bucket
    slot = peek32(place)
    while slot != wanted:
        place = row[LINKS_AT] + slot * _U4
        slot = peek32(place)
    poke32(place, peek32(row[LINKS_AT] + wanted * _U4))
    poke64(row[STATE_AT] + COUNT, peek64(row[STATE_AT] + COUNT) - _U1)


@hot
def link_first(row: Words, bucket: Scalar, slot: Scalar) -> None:
    """Put a slot at the head of a chain; one entry more."""
    poke32(row[LINKS_AT] + slot * _U4, peek32(bucket))
    poke32(bucket, slot)
    poke64(row[STATE_AT] + COUNT, peek64(row[STATE_AT] + COUNT) + _U1)


@hot
def check_flags(slot: Scalar, flags: Scalar) -> Scalar:
    """-EEXIST or -ENOENT where BPF_NOEXIST or BPF_EXIST says so, else 0."""
    if slot != _U0 and flags & _PLAIN == _NOEXIST:
        return -EEXIST
    if slot == _U0 and flags & _PLAIN == _EXIST:
        return -ENOENT
    return 0


@hot
def take_slot(row: Words) -> Scalar:
    """A free slot, 0 when there is none."""
    state = row[STATE_AT]
    slot = peek64(state + FREE)
    if slot != _U0:
        poke64(state + FREE, peek32(row[LINKS_AT] + slot * _U4))
        return slot
    used = peek64(state + USED)
    if used >= row[SLOTS]:
        return _U0
    poke64(state + USED, used + _U1)
    return used + _U1


@hot
def lookup(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """Pointer to the value, 0 when the key is absent. key: machine address."""
    slot = find(row, key, bucket_of(row, key))
    return _U0 if slot == _U0 else pointer(number, value_offset(row, slot, cpu))


@hot
def replace(row: Words, bucket: Scalar, slot: Scalar, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> None:
    """New value for a present entry: through the spare slot in a plain table, in place in the others."""
    state = row[STATE_AT]
    fresh = peek64(state + SPARE)
    if fresh == _U0 or flags & _LOCK:
        copy_value(row, row[VALUES_AT] + value_offset(row, slot, cpu), value)
        return
    copy(key_of(row, fresh), key, row[KEY_SIZE])
    copy_value(row, row[VALUES_AT] + value_offset(row, fresh, _U0), value)
    unlink(row, bucket, slot)
    clear_special(row, row[VALUES_AT] + value_offset(row, slot, _U0))
    link_first(row, bucket, fresh)
    poke64(state + SPARE, slot)


@hot
def first_value(row: Words, slot: Scalar, value: Scalar, cpu: Scalar) -> None:
    """Value of a new entry; the other processors of a per-CPU table start zeroed."""
    if row[CPUS] > _U1:
        clear(row[VALUES_AT] + value_offset(row, slot, _U0), row[CPUS] * row[STRIDE])
    copy_value(row, row[VALUES_AT] + value_offset(row, slot, cpu), value)


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """0 or -errno, in htab_map_update_elem's order of checks. key, value: machine addresses."""
    if flags & _PLAIN > _EXIST:
        return -EINVAL
    if flags & _LOCK and row[SPIN_LOCK] == _U0:
        return -EINVAL
    bucket = bucket_of(row, key)
    slot = find(row, key, bucket)
    wrong = check_flags(slot, flags)
    if wrong:
        return wrong
    if slot != _U0:
        replace(row, bucket, slot, key, value, flags, cpu)
        return 0
    if peek64(row[STATE_AT] + COUNT) >= row[MAX_ENTRIES]:
        return -E2BIG
    fresh = take_slot(row)
    if fresh == _U0:
        return -ENOMEM
    copy(key_of(row, fresh), key, row[KEY_SIZE])
    first_value(row, fresh, value, cpu)
    link_first(row, bucket, fresh)
    return 0


@hot
def delete(row: Words, key: Scalar) -> Scalar:
    """0 or -ENOENT. key: machine address."""
    bucket = bucket_of(row, key)
    slot = find(row, key, bucket)
    if slot == _U0:
        return -ENOENT
    unlink(row, bucket, slot)
    clear_special(row, row[VALUES_AT] + value_offset(row, slot, _U0))
    state = row[STATE_AT]
    poke32(row[LINKS_AT] + slot * _U4, peek64(state + FREE))
    poke64(state + FREE, slot)
    return 0


@hot
def first_from(row: Words, bucket: Scalar) -> Scalar:
    """First slot of the first chain from bucket number `bucket` on, 0 when all are empty."""
    while bucket <= row[MASK]:
        slot = peek32(row[HEADS_AT] + bucket * _U4)
        if slot != _U0:
            return slot
        bucket += _U1
    return _U0


@hot
def next_slot(row: Words, key: Scalar) -> Scalar:
    """Slot after a key's in the order of a walk (get_next_key), 0 at the end. key: machine address, 0 or that of an
    absent key for the first slot."""
    if key == _U0:
        return first_from(row, _U0)
    number = jhash(key, row[KEY_SIZE], _U0) & row[MASK]
    slot = find(row, key, row[HEADS_AT] + number * _U4)
    if slot == _U0:
        return first_from(row, _U0)
    after = peek32(row[LINKS_AT] + slot * _U4)
    return after if after != _U0 else first_from(row, number + _U1)
