"""LRU_HASH and LRU_PERCPU_HASH: hash tables that evict as the kernel does (bpf_lru_list.c, hashtab.c).

A common table keeps one LRU list and, per processor, a local free and a pending list filled in batches; with
BPF_F_NO_COMMON_LRU every processor has an LRU list over its share of the slots. A program's lookup marks an entry as
used, the system call's does not. Head nodes: common n+1..n+3, then two per processor; else three per processor.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.map_kinds import BY_NAME
from pktbpf.hot import Scalar, Words, hot, peek64, poke64
from pktbpf.maps import hashtab
from pktbpf.maps.layout import (
    AUX3_AT,
    BPF_EXIST,
    BPF_F_NO_COMMON_LRU,
    EINVAL,
    ENOENT,
    ENOMEM,
    FLAGS,
    KEY_SIZE,
    KIND,
    LRU_CPUS,
    LRU_TARGET,
    MAX_ENTRIES,
    VALUES_AT,
    copy,
    copy_value,
    pointer,
)
from pktbpf.maps.lru_lists import (
    ACTIVE,
    BLOCK,
    FREE,
    INACTIVE,
    LOCAL_FREE,
    PENDING,
    REFERENCED,
    STEAL,
    after,
    before,
    cut,
    evict,
    free_node,
    info,
    is_empty,
    move,
    move_in,
    put_first,
    release,
    rotate,
    set_info,
    shrink,
    touch,
)

LOCAL_SCANS, PERCPU_SCANS, PERCPU_TARGET = (np.uint64(n) for n in (128, 4, 4))
_U0, _U1, _U2, _U3, _U16 = (np.uint64(n) for n in (0, 1, 2, 3, 16))
_M8 = np.uint64(0xFF)
_PERCPU = np.uint64(BY_NAME["LRU_PERCPU_HASH"].number)
_EXIST, _OWN_LISTS = np.uint64(BPF_EXIST), np.uint64(BPF_F_NO_COMMON_LRU)


@hot
def _common_head(row: Words) -> Scalar:
    return row[MAX_ENTRIES] + _U1


@hot
def _local_head(row: Words, cpu: Scalar) -> Scalar:
    """Head of a processor's local free list; that of its pending list follows."""
    return row[MAX_ENTRIES] + _U1 + _U3 + cpu * _U2


@hot
def _own_head(row: Words, cpu: Scalar) -> Scalar:
    return row[MAX_ENTRIES] + _U1 + cpu * _U3


@hot
def _refill(row: Words, local: Scalar) -> None:
    """Age the common list and move a batch of free nodes to a processor's local list."""
    head, block = _common_head(row), row[AUX3_AT]
    node = before(row, local + _U1)
    while node != local + _U1:
        previous = before(row, node)
        move_in(row, block, head, node, ACTIVE if info(row, node) & REFERENCED else INACTIVE)
        node = previous
    rotate(row, block, head, LOCAL_SCANS)
    fetched = _U0
    while fetched < row[LRU_TARGET]:
        node = free_node(row, block, head)
        if node == _U0:
            break
        release(row, block, node, local, LOCAL_FREE)
        fetched += _U1
    if fetched < row[LRU_TARGET]:
        shrink(row, block, head, row[LRU_TARGET] - fetched, LOCAL_SCANS, local, LOCAL_FREE)


@hot
def _take_pending(row: Words, local: Scalar) -> Scalar:
    """The oldest pending node, unreferenced if possible; its entry is evicted. 0 for none."""
    pending = local + _U1
    node = before(row, pending)
    while node != pending and info(row, node) & REFERENCED:
        node = before(row, node)
    if node == pending:
        node = before(row, pending)
    if node == pending:
        return _U0
    evict(row, node)
    cut(row, node)
    return node


@hot
def _take_local(row: Words, local: Scalar) -> Scalar:
    node = after(row, local)
    if node == local:
        return _U0
    cut(row, node)
    return node


@hot
def _steal(row: Words, cpu: Scalar) -> Scalar:
    """A node of any processor's local lists, asked in turn; 0 for none."""
    place = row[AUX3_AT] + (cpu + _U1) * BLOCK + STEAL
    first = peek64(place)
    victim, node = first, _U0
    while True:
        node = _take_local(row, _local_head(row, victim))
        if node == _U0:
            node = _take_pending(row, _local_head(row, victim))
        victim += _U1
        if victim >= row[LRU_CPUS]:
            victim = _U0
        if node != _U0 or victim == first:
            break
    poke64(place, victim)
    return node


@hot
def _common_take(row: Words, cpu: Scalar) -> Scalar:
    local = _local_head(row, cpu)
    node = _take_local(row, local)
    if node == _U0:
        _refill(row, local)
        node = _take_local(row, local)
    if node == _U0:
        node = _steal(row, cpu)
    if node != _U0:
        set_info(row, node, PENDING | cpu << _U16)
        put_first(row, node, local + _U1)
    return node


@hot
def _own_take(row: Words, cpu: Scalar) -> Scalar:
    head, block = _own_head(row, cpu), row[AUX3_AT] + cpu * BLOCK
    rotate(row, block, head, PERCPU_SCANS)
    node = free_node(row, block, head)
    if node == _U0:
        shrink(row, block, head, PERCPU_TARGET, PERCPU_SCANS, head + FREE, FREE)
        if is_empty(row, head + FREE):
            return _U0
        node = after(row, head + FREE)
    set_info(row, node, FREE | cpu << _U16)
    move(row, block, head, node, INACTIVE)
    return node


@hot
def take(row: Words, cpu: Scalar) -> Scalar:
    """A node for a new entry, evicting old ones where none is free; 0 when even that fails."""
    processor = cpu % row[LRU_CPUS]
    if row[FLAGS] & _OWN_LISTS:
        return _own_take(row, processor)
    return _common_take(row, processor)


@hot
def give_back(row: Words, node: Scalar) -> None:
    """Free a node whose entry has left the hash table."""
    mark = info(row, node)
    cpu = mark >> _U16
    if row[FLAGS] & _OWN_LISTS:
        move(row, row[AUX3_AT] + cpu * BLOCK, _own_head(row, cpu), node, FREE)
    elif mark & _M8 == PENDING:
        set_info(row, node, LOCAL_FREE | cpu << _U16)
        cut(row, node)
        put_first(row, node, _local_head(row, cpu))
    else:
        move(row, row[AUX3_AT], _common_head(row), node, FREE)


@hot
def lookup(row: Words, number: Scalar, key: Scalar, cpu: Scalar) -> Scalar:
    """Pointer to the value, 0 when the key is absent; marks the entry as used. key: machine address."""
    slot = hashtab.slot_of(row, key)
    if slot == _U0:
        return _U0
    touch(row, slot)
    return pointer(number, hashtab.value_offset(row, slot, cpu))


@hot
def update(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """0 or -errno. A node is taken before the flags are looked at, so an update that fails may evict an entry."""
    if flags > _EXIST:
        return -EINVAL
    if row[KIND] == _PERCPU:
        return _update_percpu(row, key, value, flags, cpu % row[LRU_CPUS])
    fresh = take(row, cpu)
    if fresh == _U0:
        return -ENOMEM
    copy(hashtab.key_of(row, fresh), key, row[KEY_SIZE])
    copy_value(row, row[VALUES_AT] + hashtab.value_offset(row, fresh, _U0), value)
    bucket = hashtab.bucket_of(row, key)
    old = hashtab.find(row, key, bucket)
    wrong = hashtab.check_flags(old, flags)
    if wrong:
        give_back(row, fresh)
        return wrong
    hashtab.link_first(row, bucket, fresh)
    if old != _U0:
        touch(row, fresh)
        hashtab.unlink(row, bucket, old)
        give_back(row, old)
    return 0


@hot
def _update_percpu(row: Words, key: Scalar, value: Scalar, flags: Scalar, cpu: Scalar) -> Scalar:
    """A present entry changes in place; the node taken for nothing goes back."""
    fresh = _U0
    if flags != _EXIST:
        fresh = take(row, cpu)
        if fresh == _U0:
            return -ENOMEM
        copy(hashtab.key_of(row, fresh), key, row[KEY_SIZE])
    bucket = hashtab.bucket_of(row, key)
    old = hashtab.find(row, key, bucket)
    wrong = hashtab.check_flags(old, flags)
    if wrong:
        if fresh != _U0:
            give_back(row, fresh)
        return wrong
    if old == _U0:
        hashtab.first_value(row, fresh, value, cpu)
        hashtab.link_first(row, bucket, fresh)
        return 0
    touch(row, old)
    copy_value(row, row[VALUES_AT] + hashtab.value_offset(row, old, cpu), value)
    if fresh != _U0:
        give_back(row, fresh)
    return 0


@hot
def delete(row: Words, key: Scalar) -> Scalar:
    """0 or -ENOENT. key: machine address."""
    bucket = hashtab.bucket_of(row, key)
    slot = hashtab.find(row, key, bucket)
    if slot == _U0:
        return -ENOENT
    hashtab.unlink(row, bucket, slot)
    give_back(row, slot)
    return 0
