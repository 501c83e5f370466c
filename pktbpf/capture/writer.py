"""Writers for pcap and pcapng: chosen packets of batches, cut to what is kept, complete and valid at every moment.

pcap output is what `tcpdump -w` writes: this machine's byte order, version 2.4, the snapshot length and link type field
of the input. pcapng output has one section, enhanced packet blocks, and each interface with its own time resolution.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture import linktypes
from pktbpf.capture.batch import Batch, Interface
from pktbpf.errors import CaptureError, LinkTypeError, UsageError

Target: TypeAlias = "str | os.PathLike[str] | BinaryIO"

GIGA = 1_000_000_000
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".lz4")


class Encoder(Protocol):
    """Turns packets into the bytes of one file format. `outside` counts times that the format cannot hold."""

    outside: int

    def opening(self) -> bytes:
        """What the file begins with."""
        ...

    def whole(self, data: memoryview, size: int) -> int:
        """How many of the first `size` bytes of `data`, which `records` gave, are whole records."""
        ...

    def records(self, batch: Batch, rows: NDArray[np.int64], length: NDArray[np.int64]) -> bytes | memoryview:
        """Whole records of the packets."""
        ...


class PcapEncoder:
    """pcap, one link type. A time outside of 1970-2106 is stored modulo 2^32 seconds, as libpcap does."""

    def __init__(self, linktype: int, *, nanosecond: bool, snaplen: int, class_bits: int, path: str):
        self.linktype = linktype
        self.outside = 0
        self._nanosecond = nanosecond
        self._snaplen = snaplen
        self._field = linktypes.to_file(linktype) | class_bits
        self._path = path

    def opening(self) -> bytes:
        """The file header."""
        magic = 0xA1B23C4D if self._nanosecond else 0xA1B2C3D4
        return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, self._snaplen, self._field)

    def records(self, batch: Batch, rows: NDArray[np.int64], length: NDArray[np.int64]) -> memoryview:
        """The records of packets `rows`, cut to `length`."""
        from pktbpf.capture import gather

        self._check_linktype(batch, rows)
        stamps = batch.timestamp[rows]
        seconds = stamps // GIGA
        fraction = (stamps - seconds * GIGA) // (1 if self._nanosecond else 1000)
        self.outside += int(np.count_nonzero((seconds < 0) | (seconds > 0xFFFFFFFF)))
        out = np.empty(int(length.sum()) + 16 * len(rows), dtype=np.uint8)
        gather.gather_pcap(batch.data, batch.start, batch.wirelen, rows, length, seconds, fraction, out)
        return memoryview(out)  # type: ignore[arg-type]

    def whole(self, data: memoryview, size: int) -> int:
        """The end of the last record that ends before `size`; its captured length stands at byte 8."""
        end = 0
        while end + 16 <= size and (after := end + 16 + struct.unpack_from("<I", data, end + 8)[0]) <= size:
            end = after
        return end

    def _check_linktype(self, batch: Batch, rows: NDArray[np.int64]) -> None:
        cards = {0} if len(batch.interfaces) == 1 else set(np.unique(batch.interface[rows]).tolist())
        for card in cards:
            found = batch.interfaces[card].linktype
            if found != self.linktype:
                raise UsageError(
                    f"{self._path}: a pcap file holds one link type, here {linktypes.name_of(self.linktype)} and "
                    f"{linktypes.name_of(found)} come together; write pcapng instead"
                )


class PcapngEncoder:
    """pcapng. Interfaces are described when they first appear; those of several inputs are merged where equal.

    Resolutions finer than ns become ns, which is what a batch holds. A time before 1970 is stored as 0.
    """

    def __init__(self, interfaces: Sequence[Interface]):
        self.outside = 0
        self._equal: dict[Interface, list[int]] = {}  # interfaces in the file, by what they say
        self._source: Sequence[Interface] | None = None
        self._taken: dict[Interface, int] = {}  # how many equal ones the present input has used
        self._cards: list[int] = []  # the input's interface number to the file's
        self._codes: list[int] = []
        self._begin = self._adopt(interfaces)

    def opening(self) -> bytes:
        """The section header and the interfaces known from the start."""
        return struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + self._begin

    def records(self, batch: Batch, rows: NDArray[np.int64], length: NDArray[np.int64]) -> bytes | memoryview:
        """Enhanced packet blocks of packets `rows`, after the descriptions of interfaces that are new."""
        from pktbpf.capture import gather

        described = self._adopt(batch.interfaces)
        source = batch.interface[rows]
        card = np.array(self._cards, dtype=np.int64)[source]
        ticks = self._ticks(batch.timestamp[rows], np.array(self._codes, dtype=np.int64)[card])
        out = np.empty(int(((length + 3) // 4 * 4).sum()) + 32 * len(rows), dtype=np.uint8)
        gather.gather_pcapng(batch.data, batch.start, batch.wirelen, rows, length, ticks, card, out)
        view = memoryview(out)  # type: ignore[arg-type]
        return described + bytes(view) if described else view

    def whole(self, data: memoryview, size: int) -> int:
        """The end of the last block that ends before `size`; its length stands at byte 4."""
        end = 0
        while end + 12 <= size and (after := end + struct.unpack_from("<I", data, end + 4)[0]) <= size:
            end = after
        return end

    def _adopt(self, interfaces: Sequence[Interface]) -> bytes:
        """Map the interfaces of an input to those of the file; the descriptions to write."""
        if interfaces is not self._source:
            self._source, self._cards, self._taken = interfaces, [], {}
        described = []
        for interface in interfaces[len(self._cards) :]:
            equal = self._equal.setdefault(interface, [])
            taken = self._taken.get(interface, 0)
            if taken == len(equal):
                code = resolution_code(interface.resolution)
                described.append(_description(interface, code))
                equal.append(len(self._codes))
                self._codes.append(code)
            self._cards.append(equal[taken])
            self._taken[interface] = taken + 1
        return b"".join(described)

    def _ticks(self, stamps: NDArray[np.int64], codes: NDArray[np.int64]) -> NDArray[np.uint64]:
        """ns since 1970 in the units of if_tsresol codes, such that reading gives the same ns back where it can."""
        early = stamps < 0
        self.outside += int(np.count_nonzero(early))
        stamps = np.where(early, 0, stamps)
        ticks = np.zeros(len(stamps), dtype=np.uint64)
        for code in set(codes.tolist()):
            those = codes == code
            if code & 0x80:
                # Reading rounds a binary fraction down to ns, so the way back rounds up.
                shift = code & 0x7F
                seconds, fraction = np.divmod(stamps[those], GIGA)
                ticks[those] = (seconds << shift) + ((fraction << shift) + (GIGA - 1)) // GIGA
            else:
                ticks[those] = stamps[those] // 10 ** (9 - code)
        return ticks


def resolution_code(resolution: int) -> int:
    """The if_tsresol byte for ticks per second: a power of ten or of two; nanoseconds for what is finer or neither."""
    for exponent in range(10):
        if resolution == 10**exponent:
            return exponent
    exponent = resolution.bit_length() - 1
    return 0x80 | exponent if resolution == 1 << exponent and exponent < 30 else 9


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _description(interface: Interface, code: int) -> bytes:
    field = linktypes.to_file(interface.linktype)
    if field > 0xFFFF:
        raise LinkTypeError(f"link type {interface.linktype} does not fit into pcapng's 16 bits")
    options = _option(2, interface.name.encode()[:0xFFFF]) if interface.name else b""
    options += _option(9, bytes([code])) if code != 6 else b""
    options += _option(13, bytes([interface.fcs])) if 0 < interface.fcs < 256 else b""
    options += _option(0, b"") if options else b""
    total = 20 + len(options)
    snaplen = interface.snaplen & 0xFFFFFFFF
    return struct.pack("<IIHHI", 1, total, field, 0, snaplen) + options + struct.pack("<I", total)


class Writer:
    """An open output file and a context manager. packets: count written. path: what messages call the target."""

    def __init__(self, file: Any, encoder: Encoder, path: str, *, owned: bool):
        self.path = path
        self.packets = 0
        self._file = file
        self._encoder = encoder
        self._owned = owned
        self._closed = False
        self._put(encoder.opening(), lambda data, size: 0)

    @property
    def outside(self) -> int:
        """Packets whose time the format cannot hold exactly (before 1970, or in pcap after 2106)."""
        return self._encoder.outside

    def write(self, batch: Batch, rows: NDArray[np.int64], kept: NDArray[np.int64]) -> None:
        """Write packets `rows` (0-based in the batch), the first min(kept, caplen) bytes of each; wirelen stays.

        rows, kept: int64[n]. UsageError for a second link type in a pcap file, CaptureError when writing fails.
        """
        if len(rows) != len(kept):
            raise ValueError(f"{len(rows)} rows but {len(kept)} kept lengths")
        if not len(rows):
            return
        rows = np.ascontiguousarray(rows, dtype=np.int64)
        length = np.minimum(kept, batch.caplen[rows]).astype(np.int64)
        self._put(self._encoder.records(batch, rows, np.maximum(length, 0)), self._encoder.whole)
        self.packets += len(rows)

    def _put(self, data: bytes | memoryview, whole: Callable[[memoryview, int], int]) -> None:
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                done += self._some(view[done:])
            if not self._owned:
                self._file.flush()  # who reads the other end of a pipe gets each batch at once
        except BaseException as error:
            if done and isinstance(self._file, io.FileIO) and _is_regular(self._file):
                # A full disk, an interrupt: what stands there stays a capture that can be read.
                self._file.truncate(self._file.tell() - done + whole(view, done))
            if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
                raise
            raise CaptureError(f"cannot write: {error.strerror or error}", path=self.path) from error

    def _some(self, data: memoryview) -> int:
        """Write what fits; the count of bytes. Only a raw file takes less than it is given."""
        count = self._file.write(data)
        if not isinstance(self._file, io.RawIOBase):
            return len(data)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return int(count)

    def close(self) -> None:
        """Flush, and close what was opened here; the file is complete. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._owned:
                self._file.close()
            else:
                self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CaptureError(f"cannot write: {error.strerror or error}", path=self.path) from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def format_of(target: Target) -> str:
    """The format that a target's name asks for: pcapng for `.pcapng` and `.ntar` (also compressed), else pcap."""
    if not isinstance(target, str | os.PathLike):
        return "pcap"
    name = os.fspath(target).lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return "pcapng" if name.endswith((".pcapng", ".ntar")) else "pcap"


def same_file(source: str, target: Target) -> bool:
    """Whether a target is the regular file that is called `source`."""
    if not isinstance(target, str | os.PathLike) or not Path(source).is_file():
        return False
    return Path(target).exists() and Path(source).samefile(target)


def open_writer(
    target: Target, *, format: str | None = None, linktype: int | None = None, interfaces: Sequence[Interface] = (),
    nanosecond: bool = False, snaplen: int | None = None, class_bits: int = 0,
) -> Writer:  # fmt: skip
    """Open a capture for writing; its header is written at once, so that it is valid whatever follows.

    target: a path (.gz, .bz2, .xz, .zst, .lz4: compressed), "-" for standard output, or a binary file object. format:
    "pcap" or "pcapng", None to go by the name. linktype (DLT), nanosecond, snaplen, class_bits: of a pcap file;
    linktype and snaplen are by default those of the first interface. interfaces: those a pcapng file begins with.
    """
    path = os.fspath(target) if isinstance(target, str | os.PathLike) else str(getattr(target, "name", "<output>"))
    format = format or format_of(target)
    first = interfaces[0] if interfaces else None
    encoder: Encoder
    if format == "pcapng":
        if not interfaces and linktype is not None:
            resolution = GIGA if nanosecond else 1_000_000
            interfaces = (Interface(linktype, snaplen or 0, resolution),)
        encoder = PcapngEncoder(interfaces)
    elif format == "pcap":
        linktype = first.linktype if linktype is None and first else linktype
        if linktype is None:
            raise UsageError(f"{path}: a pcap file needs a link type")
        if snaplen is None:
            snaplen = (first.snaplen if first else 0) or linktypes.max_snaplen(linktype)
        encoder = PcapEncoder(linktype, nanosecond=nanosecond, snaplen=snaplen, class_bits=class_bits, path=path)
    else:
        raise UsageError(f"unknown capture format {format!r}; there are pcap and pcapng")
    file, owned = _open_target(target, path)
    try:
        return Writer(file, encoder, path, owned=owned)
    except BaseException:
        if owned:
            with contextlib.suppress(OSError):  # what could not be written cannot be flushed either
                file.close()
        raise


def _standard_output() -> Any:
    """Standard output for bytes; without its buffer where it is a file, so that what is written is known exactly."""
    buffer = getattr(sys.stdout, "buffer", sys.stdout)
    raw = getattr(buffer, "raw", None)
    if not isinstance(raw, io.FileIO):
        return buffer
    sys.stdout.flush()
    return raw


def _is_regular(file: io.FileIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _open_target(target: Target, path: str) -> tuple[Any, bool]:
    if target == "-" or target is getattr(sys.stdout, "buffer", sys.stdout):
        return _standard_output(), False
    if not isinstance(target, str | os.PathLike):
        return target, False
    try:
        if path.endswith(".lz4"):
            import lz4.frame

            return lz4.frame.open(path, "wb"), True
        if path.endswith(COMPRESSED_SUFFIXES):
            from xopen import xopen

            return xopen(path, "wb", threads=0), True
        return Path(path).open("wb", buffering=0), True  # batches are large; what is written is known exactly
    except OSError as error:
        raise CaptureError(f"cannot write: {error.strerror or error}", path=path) from error
