"""A live reader of a PERF_EVENT_ARRAY: a software event per processor at the index of its number, and their ring pages.

What libbpf's perf_buffer does: perf_event_open(PERF_COUNT_SW_BPF_OUTPUT), one per processor that is there and has a
place in the array. A sample comes as perf delivers it: padded so that with its length of 4 bytes in front it fills
8-byte words; what is in the padding is left over from earlier samples.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct
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
_RECORD_LOST, _RECORD_SAMPLE = 2, 9
_CLOSE_ON_EXEC = 1 << 3
_HEAD, _TAIL = 1024, 1032  # data_head and data_tail in struct perf_event_mmap_page
_PAGE = mmap.PAGESIZE


class Sample(NamedTuple):
    """One sample. cpu: the processor, which is its index in the array. time: perf's clock, nanoseconds. data: with the
    padding that perf adds."""

    cpu: int
    time: int
    data: bytes


class _Ring(NamedTuple):
    fd: int
    pages: mmap.mmap


class PerfReader:
    """Events on every processor, put into the array `fd` of `max_entries` slots; `read` takes the samples out.

    pages: of each processor's ring, a power of two. Raises KernelUnavailable when perf_event_open is not allowed.
    """

    def __init__(self, fd: int, max_entries: int, *, pages: int = 64):
        self._size = pages * _PAGE
        self._rings: dict[int, _Ring] = {}
        self.lost = 0
        try:
            for cpu in range(min(max_entries, os.sysconf("SC_NPROCESSORS_CONF"))):
                event = _open(cpu)
                if event is None:
                    continue
                self._rings[cpu] = _Ring(event, mmap.mmap(event, _PAGE + self._size, mmap.MAP_SHARED))
                syscall.map_element(
                    syscall.MAP_UPDATE_ELEM, fd, struct.pack("=I", cpu), struct.pack("=I", event)
                )
        except BaseException:
            self.close()
            raise

    @property
    def cpus(self) -> tuple[int, ...]:
        """Processors that have an event in the array."""
        return tuple(self._rings)

    def read(self) -> list[Sample]:
        """All samples since the last call, in order of time. Those that found no room are counted in `lost`."""
        out: list[Sample] = []
        for cpu, ring in self._rings.items():
            out += self._drain(cpu, ring.pages)
        return sorted(out, key=lambda sample: sample.time)

    def _drain(self, cpu: int, pages: mmap.mmap) -> list[Sample]:
        head, at = struct.unpack_from("<Q", pages, _HEAD)[0], struct.unpack_from("<Q", pages, _TAIL)[0]
        out = []
        while at < head:
            kind, _, size = struct.unpack("<IHH", self._bytes(pages, at, 8))
            body = self._bytes(pages, at + 8, max(size - 8, 0))
            if size < 8 or (kind == _RECORD_SAMPLE and size < 20):
                # A sample over 64 KiB does not fit perf's 16-bit size, and nothing behind it can be found.
                self.lost += 1
                at = head
                break
            if kind == _RECORD_SAMPLE:
                time, length = struct.unpack_from("<QI", body)
                out.append(Sample(cpu, time, body[12 : 12 + length]))
            elif kind == _RECORD_LOST:
                self.lost += struct.unpack_from("<Q", body, 8)[0]
            at += size
        struct.pack_into("<Q", pages, _TAIL, at)
        return out

    def _bytes(self, pages: mmap.mmap, at: int, count: int) -> bytes:
        begin = at % self._size
        first = pages[_PAGE + begin : _PAGE + min(begin + count, self._size)]
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


def _open(cpu: int) -> int | None:
    """The event of a processor, None for one that is switched off."""
    number = _SYSCALL_NUMBER.get(platform.machine())
    if number is None:
        raise KernelUnavailable(errno.ENOSYS, f"perf_event_open on {platform.machine()}")
    attr = struct.pack("<IIQQQQQI", _SOFTWARE, _ATTR_SIZE, _BPF_OUTPUT, 1, _SAMPLE_TIME | _SAMPLE_RAW, 0, 0, 1)
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
