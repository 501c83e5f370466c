"""A live reader of a PERF_EVENT_ARRAY: a software event per processor at the index of its number, and their ring pages.

What libbpf's perf_buffer does: perf_event_open(PERF_COUNT_SW_BPF_OUTPUT), one per processor that is there and has a
place in the array. A sample comes as perf delivers it: padded so that with its length of 4 bytes in front it fills
8-byte words; what is in the padding is left over from earlier samples. A ring that is full takes no more until it is
read: the program gets -ENOSPC, and the reader learns how many there were.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
import sys
from types import TracebackType
from typing import NamedTuple

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

_SYSCALL_NUMBER = {
    "x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "s390x": 331, "ppc64le": 319, "ppc64": 319,
    "armv7l": 364, "i686": 336,
}  # fmt: skip
_ATTR_SIZE = 112  # PERF_ATTR_SIZE_VER5
_SOFTWARE, _BPF_OUTPUT = 1, 10
_SAMPLE_TIME, _SAMPLE_RAW = 1 << 2, 1 << 10
_FORMAT_LOST = 1 << 4  # PERF_FORMAT_LOST, since 6.0: read(2) gives value and lost samples, 8 bytes each
_RECORD_LOST, _RECORD_SAMPLE = 2, 9
_CLOSE_ON_EXEC = 1 << 3
_HEAD, _TAIL = 1024, 1032  # data_head and data_tail in struct perf_event_mmap_page
_PAGE = mmap.PAGESIZE
_RING = 512 << 10  # with the page in front as much as kernel.perf_event_mlock_kb lets everybody have by default


class Sample(NamedTuple):
    """One sample. cpu: the processor, which is its index in the array. time: perf's clock, nanoseconds. data: with the
    padding that perf adds."""

    cpu: int
    time: int
    data: bytes


class _Ring(NamedTuple):
    """One processor's event. counts: whether read(2) tells how many samples it lost."""

    fd: int
    pages: mmap.mmap
    counts: bool


class PerfReader:
    """Events on every processor, put into the array `fd` of `max_entries` slots; `read` takes the samples out.

    size: bytes of each processor's ring, a power of two and at least a page. Raises KernelUnavailable when
    perf_event_open is not allowed.
    """

    def __init__(self, fd: int, max_entries: int, *, size: int = _RING):
        self._size = max(size, _PAGE)
        self._rings: dict[int, _Ring] = {}
        self._told = 0
        self._unreadable = 0
        try:
            for cpu in range(min(max_entries, os.sysconf("SC_NPROCESSORS_CONF"))):
                ring = self._opened(cpu)
                if ring is not None:
                    self._rings[cpu] = ring
                    key, value = struct.pack("=I", cpu), struct.pack("=I", ring.fd)
                    syscall.map_element(syscall.MAP_UPDATE_ELEM, fd, key, value)
        except BaseException:
            self.close()
            raise

    def _opened(self, cpu: int) -> _Ring | None:
        counts = True
        try:
            event = _open(cpu, _FORMAT_LOST)
        except KernelUnavailable as refusal:
            if refusal.errno != errno.EINVAL:
                raise
            counts, event = False, _open(cpu, 0)
        if event is None:
            return None
        try:
            return _Ring(event, self._mapped(event), counts)
        except BaseException:
            os.close(event)
            raise

    def _mapped(self, event: int) -> mmap.mmap:
        """The event's ring, smaller than asked for where others hold what kernel.perf_event_mlock_kb lets a user lock;
        what then finds no room is counted as lost."""
        while True:
            try:
                return mmap.mmap(event, _PAGE + self._size, mmap.MAP_SHARED)
            except OSError as problem:
                if problem.errno != errno.EPERM or self._size <= _PAGE:
                    what = "a ring for perf events; kernel.perf_event_mlock_kb says how much a user may lock"
                    raise KernelUnavailable(problem.errno or 0, what) from None
                self._size //= 2

    @property
    def cpus(self) -> tuple[int, ...]:
        """Processors that have an event in the array."""
        return tuple(self._rings)

    def read(self) -> list[Sample]:
        """All samples since the last call, in order of time. `lost` counts those that should be among them."""
        out: list[Sample] = []
        for cpu, ring in self._rings.items():
            out += self._drain(cpu, ring)
        return sorted(out, key=lambda sample: sample.time)

    @property
    def lost(self) -> int:
        """Samples that `read` has not given and never will: those that found no room and, for each time that one over
        64 KiB hid all behind it, 1. Before 6.0 the last ones that found no room are told with the next that does."""
        counted = [os.read(ring.fd, 16)[8:] for ring in self._rings.values() if ring.counts]
        return sum(int.from_bytes(count, sys.byteorder) for count in counted) + self._told + self._unreadable

    def _drain(self, cpu: int, ring: _Ring) -> list[Sample]:
        pages = ring.pages
        head, at = struct.unpack_from("<Q", pages, _HEAD)[0], struct.unpack_from("<Q", pages, _TAIL)[0]
        out = []
        while at < head:
            kind, _, size = struct.unpack("<IHH", self._bytes(pages, at, 8))
            body = self._bytes(pages, at + 8, max(size - 8, 0))
            if size < 8 or (kind == _RECORD_SAMPLE and size < 20):
                # A sample over 64 KiB does not fit perf's 16-bit size, and nothing behind it can be found.
                self._unreadable += 1
                at = head
                break
            if kind == _RECORD_SAMPLE:
                time, length = struct.unpack_from("<QI", body)
                out.append(Sample(cpu, time, body[12 : 12 + length]))
            elif kind == _RECORD_LOST and not ring.counts:
                self._told += struct.unpack_from("<Q", body, 8)[0]
            at += size
        struct.pack_into("<Q", pages, _TAIL, at)
        return out

    def _bytes(self, pages: mmap.mmap, at: int, count: int) -> bytes:
        size = len(pages) - _PAGE
        begin = at % size
        first = pages[_PAGE + begin : _PAGE + min(begin + count, size)]
        return first + pages[_PAGE : _PAGE + count - len(first)]

    def close(self) -> None:
        """Close the events. The array drops them when the descriptor that put them in is closed."""
        for ring in self._rings.values():
            ring.pages.close()
            os.close(ring.fd)
        self._rings = {}

    def __enter__(self) -> PerfReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def unpadded(data: bytes, size: int) -> bytes:
    """The first `size` bytes of a sample that perf pads to as many as there are; all of them for another size."""
    return data[:size] if len(data) == (size + 4 + 7) // 8 * 8 - 4 else data


def _open(cpu: int, read_format: int) -> int | None:
    """The event of a processor, None for one that is switched off."""
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise KernelUnavailable(errno.ENOSYS, f"perf_event_open on {platform.machine()}")
    sample = _SAMPLE_TIME | _SAMPLE_RAW
    attr = struct.pack("<IIQQQQQI", _SOFTWARE, _ATTR_SIZE, _BPF_OUTPUT, 1, sample, read_format, 0, 1)
    buffer = ctypes.create_string_buffer(attr, _ATTR_SIZE)
    call = syscall.libc().syscall
    call.restype = ctypes.c_long
    fd: int = call(
        ctypes.c_long(number), ctypes.byref(buffer), ctypes.c_int(-1), ctypes.c_int(cpu), ctypes.c_int(-1),
        ctypes.c_ulong(_CLOSE_ON_EXEC),
    )  # fmt: skip
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number == errno.ENODEV:
        return None
    raise KernelUnavailable(number, "perf_event_open")
