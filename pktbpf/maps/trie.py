"""LPM_TRIE: longest prefix match; a key is a 32-bit prefix length and that many bits, most significant first.

Mirrors kernel/bpf/lpm_trie.c. Slots count from 1; a slot is an entry or an intermediate node, which has two children
and no value. LINKS: two uint32 children per slot. MARKS (row[AUX_AT]): a byte per slot, 1 for an intermediate node.
STATE: entries, head of the free list (through child 0), slots ever used, root.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek8, peek32, peek64, poke8, poke32, poke64
from pktbpf.maps.layout import (
    AUX_AT,
    BPF_EXIST,
    BPF_NOEXIST,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOSPC,
    KEY_SIZE,
    KEY_STRIDE,
    KEYS_AT,
    LINKS_AT,
    MAX_ENTRIES,
    SLOTS,
    STATE_AT,
    STRIDE,
    VALUE_SIZE,
    VALUES_AT,
    copy,
    pointer,
)

COUNT, FREE, USED, ROOT = (np.uint64(8 * n) for n in range(4))
_U0, _U1, _U3, _U4, _U7, _U8 = (np.uint64(n) for n in (0, 1, 3, 4, 7, 8))
_TOP = np.uint64(0x80)
_EXIST, _NOEXIST = np.uint64(BPF_EXIST), np.uint64(BPF_NOEXIST)


@hot
def key_of(row: Words, slot: Scalar) -> Scalar:
    """Machine address of a slot's key."""
    return row[KEYS_AT] + (slot - _U1) * row[KEY_STRIDE]


@hot
def longest(row: Words) -> Scalar:
    """Number of bits that a prefix may have."""
    return (row[KEY_SIZE] - _U4) * _U8


@hot
def _bit(key: Scalar, index: Scalar) -> Scalar:
    return peek8(key + _U4 + (index >> _U3)) >> (_U7 - (index & _U7)) & _U1


@hot
def _shared(row: Words, slot: Scalar, key: Scalar) -> Scalar:
    """How many leading bits a slot's prefix and a key's have in common."""
    own = key_of(row, slot)
    limit = min(peek32(own), peek32(key))
    done = _U0
    while done < limit:
        place = _U4 + (done >> _U3)
        different = peek8(own + place) ^ peek8(key + place)
        if different:
            while not different & _TOP:
                different <<= _U1
                done += _U1
            return min(done, limit)
        done += _U8
    return limit


@hot
def _child(row: Words, slot: Scalar, side: Scalar) -> Scalar:
    """Place (machine address) of a link to a child."""
    return row[LINKS_AT] + slot * _U8 + side * _U4


@hot
def _is_intermediate(row: Words, slot: Scalar) -> Scalar:
    return peek8(row[AUX_AT] + slot) != _U0


@hot
def _take(row: Words, intermediate: Scalar) -> Scalar:
    state = row[STATE_AT]
    slot = peek64(state + FREE)
    if slot != _U0:
        poke64(state + FREE, peek32(_child(row, slot, _U0)))
    else:
        if peek64(state + USED) >= row[SLOTS]:
            return _U0
        slot = peek64(state + USED) + _U1
        poke64(state + USED, slot)
    poke64(row[LINKS_AT] + slot * _U8, _U0)
    poke8(row[AUX_AT] + slot, intermediate)
    return slot


@hot
def _give(row: Words, slot: Scalar) -> None:
    poke32(_child(row, slot, _U0), peek64(row[STATE_AT] + FREE))
    poke64(row[STATE_AT] + FREE, slot)


@hot
def find(row: Words, key: Scalar) -> Scalar:
    """Slot of the most specific entry that covers a key, 0 for none."""
    if peek32(key) > longest(row):
        return _U0
    slot, found = peek64(row[STATE_AT] + ROOT), _U0
    while slot != _U0:
        bits = _shared(row, slot, key)
        if bits == longest(row):
            return slot
        own = peek32(key_of(row, slot))
        if bits < own:
            break
        if not _is_intermediate(row, slot):
            found = slot
        slot = peek32(_child(row, slot, _bit(key, own)))
    return found


@hot
def lookup(row: Words, number: Scalar, key: Scalar) -> Scalar:
    """Pointer to the value of the longest prefix that covers the key, 0 for none. key: machine address."""
    slot = find(row, key)
    return _U0 if slot == _U0 else pointer(number, (slot - _U1) * row[STRIDE])


@hot
def _walk(row: Words, key: Scalar) -> Scalar:
    """(place of the link, parent's link, parent) of where a key is or would be; the link's slot may be 0."""
    place, above, parent = row[STATE_AT] + ROOT, row[STATE_AT] + ROOT, _U0
    slot = peek32(place)
    while slot != _U0:
        own = peek32(key_of(row, slot))
        if _shared(row, slot, key) != own or own == peek32(key):
            break
        above, parent = place, slot
        place = _child(row, slot, _bit(key, own))
        slot = peek32(place)
    return place, above, parent


@hot
def _may_add(row: Words, flags: Scalar) -> Scalar:
    if flags == _EXIST:
        return -ENOENT
    return -ENOSPC if peek64(row[STATE_AT] + COUNT) == row[MAX_ENTRIES] else 0


@hot
def _new_entry(row: Words, key: Scalar, value: Scalar) -> Scalar:
    fresh = _take(row, _U0)
    if fresh != _U0:
        copy(key_of(row, fresh), key, row[KEY_SIZE])
        copy(row[VALUES_AT] + (fresh - _U1) * row[STRIDE], value, row[VALUE_SIZE])
    return fresh


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar) -> Scalar:
    """0 or -errno. key, value: machine addresses."""
    if flags > _EXIST or peek32(key) > longest(row):
        return -EINVAL
    place, _, _ = _walk(row, key)
    slot = peek32(place)
    bits = _U0
    present = False
    if slot != _U0:
        bits = _shared(row, slot, key)
        present = bits == peek32(key_of(row, slot)) and not _is_intermediate(row, slot)
    if present:
        if flags == _NOEXIST:
            return -EEXIST
    else:
        wrong = _may_add(row, flags)
        if wrong:
            return wrong
    fresh = _new_entry(row, key, value)
    if fresh == _U0:
        return -ENOMEM
    if not _join(row, place, slot, fresh, key, bits):
        _give(row, fresh)
        return -ENOMEM
    if not present:
        poke64(row[STATE_AT] + COUNT, peek64(row[STATE_AT] + COUNT) + _U1)
    return 0


@hot
def _join(row: Words, place: Scalar, slot: Scalar, fresh: Scalar, key: Scalar, bits: Scalar) -> Scalar:
    """Link a new entry at a place: alone, instead of the slot there, above it, or beside it below a new fork."""
    if slot == _U0:
        poke32(place, fresh)
    elif bits == peek32(key_of(row, slot)):
        poke64(row[LINKS_AT] + fresh * _U8, peek64(row[LINKS_AT] + slot * _U8))
        poke32(place, fresh)
        _give(row, slot)
    elif bits == peek32(key):
        poke32(_child(row, fresh, _bit(key_of(row, slot), bits)), slot)
        poke32(place, fresh)
    else:
        fork = _take(row, _U1)
        if fork == _U0:
            return False
        copy(key_of(row, fork), key_of(row, slot), row[KEY_SIZE])
        poke32(key_of(row, fork), bits)
        side = _bit(key, bits)
        poke32(_child(row, fork, side), fresh)
        poke32(_child(row, fork, _U1 - side), slot)
        poke32(place, fork)
    return True


@hot
def delete(row: Words, key: Scalar) -> Scalar:
    """0 or -errno. key: machine address."""
    if peek32(key) > longest(row):
        return -EINVAL
    place, above, parent = _walk(row, key)
    slot = peek32(place)
    if slot == _U0 or peek32(key_of(row, slot)) != peek32(key) or _is_intermediate(row, slot):
        return -ENOENT
    if _shared(row, slot, key) != peek32(key):
        return -ENOENT
    poke64(row[STATE_AT] + COUNT, peek64(row[STATE_AT] + COUNT) - _U1)
    left, right = peek32(_child(row, slot, _U0)), peek32(_child(row, slot, _U1))
    if left != _U0 and right != _U0:
        poke8(row[AUX_AT] + slot, _U1)
        return 0
    if parent != _U0 and _is_intermediate(row, parent) and left == _U0 and right == _U0:
        first = peek32(_child(row, parent, _U0))
        poke32(above, peek32(_child(row, parent, _U1)) if first == slot else first)
        _give(row, parent)
    else:
        poke32(place, left if left != _U0 else right)
    _give(row, slot)
    return 0


@hot
def _leftmost(row: Words, slot: Scalar) -> Scalar:
    """The entry that a walk in postorder meets first below a slot."""
    found = _U0
    while slot != _U0:
        left = peek32(_child(row, slot, _U0))
        if _is_intermediate(row, slot):
            slot = left
        else:
            found = slot
            slot = left if left != _U0 else peek32(_child(row, slot, _U1))
    return found


@hot
def next_slot(row: Words, key: Scalar) -> Scalar:
    """Slot after a key's in postorder, more specific prefixes first; 0 at the end. The first one for no (0), an
    overlong or an absent key."""
    root = peek64(row[STATE_AT] + ROOT)
    if key == _U0 or peek32(key) > longest(row):
        return _leftmost(row, root)
    place, _, _ = _walk(row, key)
    slot = peek32(place)
    if slot == _U0 or _is_intermediate(row, slot) or peek32(key_of(row, slot)) != peek32(key):
        return _leftmost(row, root)
    if _shared(row, slot, key) != peek32(key):
        return _leftmost(row, root)
    return _after(row, root, slot, key)


@hot
def _after(row: Words, root: Scalar, wanted: Scalar, key: Scalar) -> Scalar:
    """Follow the path to an entry down and keep what comes after it: the deepest right sibling or plain ancestor."""
    slot, following = root, _U0
    while slot != wanted:
        side = _bit(key, peek32(key_of(row, slot)))
        sibling = peek32(_child(row, slot, _U1))
        if side == _U0 and sibling != _U0:
            following = _leftmost(row, sibling)
        elif not _is_intermediate(row, slot):
            following = slot
        slot = peek32(_child(row, slot, side))
    return following
