"""The lists behind LRU tables: active, inactive and free nodes, and each processor's local ones (bpf_lru_list.c).

Nodes are the table's slots (1 to n); every list has a head node of its own after them, and lists are circular and
doubly linked. LINKS (row[AUX_AT]): uint32 next and prev per node. INFO (row[AUX2_AT]): uint32 per node, bits 0-7 the
list's type, bit 8 the reference bit, bits 16-31 the processor. BLOCKS (row[AUX3_AT]): BLOCK bytes per LRU list with its
counts, its rotation mark and the range of slots that nobody has used yet, which stand at the end of its free list.
"""

from __future__ import annotations

import numpy as np

from pktbpf.hot import Scalar, Words, hot, peek32, peek64, poke32, poke64
from pktbpf.maps import hashtab
from pktbpf.maps.layout import AUX2_AT, AUX_AT

ACTIVE, INACTIVE, FREE, LOCAL_FREE, PENDING = (np.uint64(n) for n in range(5))
# Words of a block. Counts stand at their list's type.
ROTATION, NEVER_USED, LIMIT, STEAL = (np.uint64(8 * n) for n in (2, 3, 4, 5))
BLOCK_WORDS = 6
BLOCK = np.uint64(8 * BLOCK_WORDS)
REFERENCED = np.uint64(0x100)

_U0, _U1, _U3, _U4, _U8, _U16 = (np.uint64(n) for n in (0, 1, 3, 4, 8, 16))
_M8 = np.uint64(0xFF)
_NOT_TYPE, _NOT_REFERENCED = np.uint64(0xFFFFFF00), np.uint64(0xFFFFFEFF)


@hot
def after(row: Words, node: Scalar) -> Scalar:
    """The next node of the list."""
    return peek32(row[AUX_AT] + node * _U8)


@hot
def before(row: Words, node: Scalar) -> Scalar:
    """The previous node of the list."""
    return peek32(row[AUX_AT] + node * _U8 + _U4)


@hot
def is_empty(row: Words, head: Scalar) -> Scalar:
    """Whether nothing but the head is in a list."""
    return after(row, head) == head


@hot
def cut(row: Words, node: Scalar) -> None:
    """Take a node out of its list."""
    links = row[AUX_AT]
    following, previous = after(row, node), before(row, node)
    poke32(links + previous * _U8, following)
    poke32(links + following * _U8 + _U4, previous)


@hot
def put_first(row: Words, node: Scalar, head: Scalar) -> None:
    """Put a node that is in no list behind a head."""
    links = row[AUX_AT]
    following = after(row, head)
    poke32(links + node * _U8, following)
    poke32(links + node * _U8 + _U4, head)
    poke32(links + following * _U8 + _U4, node)
    poke32(links + head * _U8, node)


@hot
def info(row: Words, node: Scalar) -> Scalar:
    """Type, reference bit and processor of a node."""
    return peek32(row[AUX2_AT] + node * _U4)


@hot
def set_info(row: Words, node: Scalar, value: Scalar) -> None:
    """Set all of them."""
    poke32(row[AUX2_AT] + node * _U4, value)


@hot
def touch(row: Words, node: Scalar) -> None:
    """Set the reference bit, as a program's lookup does."""
    set_info(row, node, info(row, node) | REFERENCED)


@hot
def _set_type(row: Words, node: Scalar, kind: Scalar) -> None:
    set_info(row, node, info(row, node) & _NOT_TYPE | kind)


@hot
def _clear_reference(row: Words, node: Scalar) -> None:
    set_info(row, node, info(row, node) & _NOT_REFERENCED)


@hot
def _count(block: Scalar, kind: Scalar, change: Scalar) -> None:
    if kind == ACTIVE or kind == INACTIVE:
        poke64(block + kind * _U8, peek64(block + kind * _U8) + change)


@hot
def move(row: Words, block: Scalar, head: Scalar, node: Scalar, kind: Scalar) -> None:
    """Move a node inside an LRU list, whose three heads begin at `head`, to its list `kind`; the reference is lost."""
    _count(block, info(row, node) & _M8, _U0 - _U1)
    _count(block, kind, _U1)
    _clear_reference(row, node)
    _set_type(row, node, kind)
    if peek64(block + ROTATION) == node:
        poke64(block + ROTATION, before(row, node))
    cut(row, node)
    put_first(row, node, head + kind)


@hot
def release(row: Words, block: Scalar, node: Scalar, target: Scalar, kind: Scalar) -> None:
    """Move a node of an LRU list to the free list with head `target`; the reference bit stays."""
    if peek64(block + ROTATION) == node:
        poke64(block + ROTATION, before(row, node))
    _count(block, info(row, node) & _M8, _U0 - _U1)
    _set_type(row, node, kind)
    cut(row, node)
    put_first(row, node, target)


@hot
def move_in(row: Words, block: Scalar, head: Scalar, node: Scalar, kind: Scalar) -> None:
    """Move a node from a local list into the LRU list."""
    _count(block, kind, _U1)
    _clear_reference(row, node)
    _set_type(row, node, kind)
    cut(row, node)
    put_first(row, node, head + kind)


@hot
def free_node(row: Words, block: Scalar, head: Scalar) -> Scalar:
    """The first node of the free list, 0 when it is empty; a slot nobody has used joins the list here."""
    node = after(row, head + FREE)
    if node != head + FREE:
        return node
    fresh = peek64(block + NEVER_USED)
    if fresh > peek64(block + LIMIT):
        return _U0
    poke64(block + NEVER_USED, fresh + _U1)
    _set_type(row, fresh, FREE)
    put_first(row, fresh, head + FREE)
    return fresh


@hot
def _rotate_active(row: Words, block: Scalar, head: Scalar, scans: Scalar) -> None:
    """From the oldest on: referenced nodes go to the front, the others to the inactive list."""
    last = after(row, head + ACTIVE)
    node, done = before(row, head + ACTIVE), _U0
    while node != head + ACTIVE:
        previous = before(row, node)
        referenced = info(row, node) & REFERENCED
        move(row, block, head, node, ACTIVE if referenced else INACTIVE)
        done += _U1
        if done == scans or node == last:
            return
        node = previous


@hot
def _rotate_inactive(row: Words, block: Scalar, head: Scalar, scans: Scalar) -> None:
    """From the mark backwards: referenced nodes become active, the others stay where they are."""
    inactive = head + INACTIVE
    if is_empty(row, inactive):
        return
    node = peek64(block + ROTATION)
    last = after(row, node)
    if last == inactive:
        last = after(row, last)
    following, done = inactive, _U0
    while done < scans:
        if node == inactive:
            node = before(row, node)
            continue
        following = before(row, node)
        if info(row, node) & REFERENCED:
            move(row, block, head, node, ACTIVE)
        if node == last:
            break
        node = following
        done += _U1
    poke64(block + ROTATION, following)


@hot
def rotate(row: Words, block: Scalar, head: Scalar, scans: Scalar) -> None:
    """Age an LRU list: the active one while it is the longer, the inactive one always."""
    if peek64(block + INACTIVE * _U8) < peek64(block + ACTIVE * _U8):
        _rotate_active(row, block, head, scans)
    _rotate_inactive(row, block, head, scans)


@hot
def evict(row: Words, node: Scalar) -> None:
    """Take a node's entry out of the hash table."""
    hashtab.unlink(row, hashtab.bucket_of(row, hashtab.key_of(row, node)), node)


@hot
def shrink(
    row: Words, block: Scalar, head: Scalar, wanted: Scalar, scans: Scalar, target: Scalar, kind: Scalar
) -> None:
    """Evict up to `wanted` old unreferenced entries into a free list; one of any age where there is none."""
    node, done, scanned = before(row, head + INACTIVE), _U0, _U0
    while node != head + INACTIVE:
        previous = before(row, node)
        if info(row, node) & REFERENCED:
            move(row, block, head, node, ACTIVE)
        else:
            evict(row, node)
            release(row, block, node, target, kind)
            done += _U1
            if done == wanted:
                return
        scanned += _U1
        if scanned == scans:
            break
        node = previous
    if done != _U0:
        return
    oldest = head + (INACTIVE if not is_empty(row, head + INACTIVE) else ACTIVE)
    node = before(row, oldest)
    if node != oldest:
        evict(row, node)
        release(row, block, node, target, kind)
