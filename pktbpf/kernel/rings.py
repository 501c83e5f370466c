"""Ring buffers of the live kernel from user space: their records out, samples in, through the mapped pages.

What libbpf's ring_buffer and user_ring_buffer do: positions that only grow, records with 8-byte headers, the data
pages mapped twice in a row so that no record wraps (kernel/bpf/ringbuf.c). Nothing waits; a busy record ends a read.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable

_PAGE = mmap.PAGESIZE
_BUSY, _DISCARD, _LENGTH = 1 << 31, 1 << 30, (1 << 30) - 1


def records(fd: int, size: int) -> list[bytes]:
    """Submitted records of a RINGBUF of `size` bytes, which are consumed; discarded ones are passed over."""
    with (
        mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0) as consumer,
        mmap.mmap(fd, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE) as producer,
    ):
        at, end = struct.unpack_from("<Q", consumer)[0], struct.unpack_from("<Q", producer)[0]
        out = []
        while at < end:
            place = _PAGE + (at & (size - 1))
            mark = struct.unpack_from("<I", producer, place)[0]
            if mark & _BUSY:
                break
            length = mark & _LENGTH
            if not mark & _DISCARD:
                out.append(producer[place + 8 : place + 8 + length])
            at += _whole(length)
        struct.pack_into("<Q", consumer, 0, at)
    return out


def produce(fd: int, size: int, samples: Iterable[tuple[bytes, bool]]) -> None:
    """Put (data, discard) samples into a USER_RINGBUF of `size` bytes. The caller knows that there is room."""
    with mmap.mmap(fd, _PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=_PAGE) as producer:
        at = struct.unpack_from("<Q", producer)[0]
        for data, discard in samples:
            place = _PAGE + (at & (size - 1))
            struct.pack_into("<II", producer, place, len(data) | (_DISCARD if discard else 0), 0)
            producer[place + 8 : place + 8 + len(data)] = data
            at += _whole(len(data))
        struct.pack_into("<Q", producer, 0, at)


def _whole(length: int) -> int:
    return (length + 8 + 7) // 8 * 8
