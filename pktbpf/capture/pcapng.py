"""The pcapng format: sections of either byte order, each with its interfaces, and all three kinds of packet block.

Simple packet blocks belong to the section's first interface and carry min(snaplen, wire length) bytes. What is refused
is what libpcap refuses, except that interfaces may differ in link type, snapshot length and time resolution and
sections in byte order. Interfaces are numbered on over all sections.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture import linktypes, pseudo
from pktbpf.capture.batch import Interface
from pktbpf.capture.window import Columns, Window
from pktbpf.errors import CaptureError

SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_LITTLE, _BIG = b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"
SECTION_LEAST, SECTION_MOST = 28, 1 << 20
BLOCK_MOST = 16 << 20
# An enhanced packet block of the largest packet and 128 KiB of options.
BLOCK_OVERHEAD = 8 + 20 + (128 << 10) + 4
_END, _NAME, _TSRESOL, _FCSLEN, _TSOFFSET = 0, 2, 9, 13, 14
# Columns and values of the interface table, see pktbpf.capture.walk (not imported here: it compiles).
_TIMES, _DIVIDED, _BINARY, _WORDS = 0, 1, 2, 6
_INT64_MOST = 0x7FFFFFFFFFFFFFFF
_BLOCK_NAMES = {2: "packet block", 3: "simple packet block", 6: "enhanced packet block"}


def clock(code: int) -> tuple[int, int, int]:
    """if_tsresol to (mode, factor, ticks per second) of the compiled walk; ValueError when it is too fine to count."""
    exponent = code & 0x7F
    if code & 0x80:
        if exponent > 63:
            raise ValueError(f"2^-{exponent} s")
        return _BINARY, exponent, 1 << exponent
    if exponent > 19:
        raise ValueError(f"10^-{exponent} s")
    if exponent <= 9:
        return _TIMES, 10 ** (9 - exponent), 10**exponent
    return _DIVIDED, 10 ** (exponent - 9), 10**exponent


class PcapngReader:
    """Walks the blocks of one pcapng file; ready once the first interface is known."""

    format = "pcapng"

    def __init__(self, window: Window):
        self.window = window
        self.interfaces: list[Interface] = []
        self.big = False
        self.clamped = 0
        self._first = 0  # number of this section's first interface
        self._known = 0  # interfaces of this section, rows of the table in use
        self._table: NDArray[np.uint64] = np.zeros((4, _WORDS), dtype=np.uint64)
        self._pseudo = False  # an interface whose packets have pseudo headers in the capturing host's byte order
        self._most = BLOCK_MOST
        self._section(opening=True)
        if self.fill(Columns(1), until_interface=True) == 0 and not self.interfaces:
            raise self._damage("there is no interface description in the file")
        self._leading_interfaces()

    def fill(self, columns: Columns, *, until_interface: bool = False) -> int:
        """Fill the columns from the window; the count of rows, 0 at the end. Damage is raised when no row is left."""
        from pktbpf.capture import walk

        window = self.window
        state = np.zeros(walk.STATE_WORDS, dtype=np.int64)
        while True:
            count = walk.walk_pcapng(
                window.data, window.begin, window.end, 0, self.big, self._most, self._table[: self._known], self._first,
                columns.start, columns.caplen, columns.wirelen, columns.timestamp, columns.interface, state,
            )  # fmt: skip
            window.begin = int(state[walk.NEXT])
            self.clamped += int(state[walk.CLAMPED])
            state[walk.CLAMPED] = 0
            if count:
                if self.big and self._pseudo:
                    pseudo.swap_rows(window.data, columns, count, self.interfaces)
                return int(count)
            status, detail = int(state[walk.STATUS]), int(state[walk.DETAIL])
            if status == walk.MORE:
                if not window.need(detail):
                    if window.held == 0:
                        return 0
                    raise self._truncated(detail)
            elif status == walk.SECTION:
                self._section(opening=False)
            elif status == walk.INTERFACE:
                self._interface(detail)
                if until_interface:
                    return 0
            elif status != walk.FULL:
                raise self._damage(self._reason(status, detail, int(state[walk.DETAIL2])))

    def _leading_interfaces(self) -> None:
        """Take in the descriptions right after the first, as far as they are at hand, so that a writer knows them."""
        window = self.window
        order = ">" if self.big else "<"
        while window.held >= 20:
            kind, total = struct.unpack(order + "II", window.data[window.begin : window.begin + 8].tobytes())
            if kind != 1 or total % 4 or not 20 <= total <= window.held:
                return  # the walk takes it from here and says what is wrong, if anything is
            end = window.begin + total
            if window.data[end - 4 : end].tobytes() != struct.pack(order + "I", total):
                return
            self._interface(total)

    def _reason(self, status: int, detail: int, detail2: int) -> str:
        from pktbpf.capture import walk

        if status == walk.BAD_BLOCK_SHORT:
            return f"a block has a length of {detail} bytes, fewer than the 12 that every block takes"
        if status == walk.BAD_BLOCK_ODD:
            return f"a block has a length of {detail} bytes, not a multiple of 4"
        if status == walk.BAD_BLOCK_LARGE:
            return f"a block has a length of {detail} bytes, more than the {self._most} that a block may have"
        if status == walk.BAD_TRAILER:
            return f"a block begins with the length {detail} and ends with the length {detail2}"
        if status == walk.BAD_INTERFACE:
            return f"a packet came in on interface {detail}, the section describes {self._known}"
        if status == walk.BAD_SNAPLEN:
            return f"captured length {detail} is more than the interface's snapshot length {detail2}"
        return f"the {_BLOCK_NAMES[detail]} is too short for what it holds"

    def _section(self, *, opening: bool) -> None:
        """Enter the section whose header is next."""
        window = self.window
        if not window.need(12):
            raise self._truncated(SECTION_LEAST)
        magic = window.data[window.begin + 8 : window.begin + 12].tobytes()
        if magic not in (_LITTLE, _BIG):
            raise self._damage(f"a section header has the byte-order magic {magic.hex()}")
        big = magic == _BIG
        order = ">" if big else "<"
        (total,) = struct.unpack(order + "I", window.data[window.begin + 4 : window.begin + 8].tobytes())
        if not SECTION_LEAST <= total <= (SECTION_MOST if opening else self._most):
            raise self._damage(f"a section header has an invalid length of {total} bytes")
        if total % 4 and not opening:
            raise self._damage(f"a block has a length of {total} bytes, not a multiple of 4")
        if not window.need(total):
            raise self._truncated(total)
        block = window.data[window.begin : window.begin + total].tobytes()
        major, minor = struct.unpack_from(order + "HH", block, 12)
        (trailer,) = struct.unpack_from(order + "I", block, total - 4)
        # libpcap lets the file's first section header end in anything and later ones have any minor version.
        if trailer != total and not opening:
            raise self._damage(f"a block begins with the length {total} and ends with the length {trailer}")
        if major != 1 or (opening and minor not in (0, 2)):
            raise self._damage(f"pcapng version {major}.{minor} is not supported (1.0 and 1.2 are)")
        window.begin += total
        self.big = big
        self._first = len(self.interfaces)
        self._known = 0

    def _interface(self, total: int) -> None:
        """Take in the interface description of `total` bytes that is next; the block is held and sound."""
        window = self.window
        body = window.data[window.begin + 8 : window.begin + total - 4].tobytes()
        if len(body) < 8:
            raise self._damage("the interface description is too short for what it holds")
        order = ">" if self.big else "<"
        field, _reserved, snaplen = struct.unpack_from(order + "HHI", body)
        options = self._options(body[8:], order)
        mode, factor, units = options.clock
        linktype = linktypes.from_file(field)
        limit = linktypes.adjust_snaplen(linktype, snaplen)
        self._most = max(self._most, linktypes.max_snaplen(linktype) + BLOCK_OVERHEAD)
        self.interfaces.append(Interface(linktype, limit, units, options.name, options.fcs))
        fast = _INT64_MOST // max(factor, 1)
        if self._known == len(self._table):
            self._table = np.concatenate((self._table, np.zeros_like(self._table)))
        self._table[self._known] = (limit, mode, factor, units, options.offset & 0xFFFFFFFFFFFFFFFF, fast)
        self._known += 1
        self._pseudo = self._pseudo or linktype in pseudo.LINKTYPES
        window.begin += total

    def _options(self, raw: bytes, order: str) -> _Options:
        """The options of an interface description, as strict as libpcap: a wrong one makes the file unreadable."""
        found = _Options()
        seen = set()
        at = 0
        while at < len(raw):
            if len(raw) - at < 4:
                raise self._damage("the options of an interface description are cut short")
            code, length = struct.unpack_from(order + "HH", raw, at)
            value = raw[at + 4 : at + 4 + length]
            at += 4 + (length + 3) // 4 * 4
            if at > len(raw):
                raise self._damage("the options of an interface description are cut short")
            wanted = {_END: 0, _TSRESOL: 1, _TSOFFSET: 8}.get(code, length)
            if length != wanted:
                raise self._damage(f"option {code} of an interface description has {length} bytes, not {wanted}")
            if code == _END:
                break
            if code in seen and code in (_TSRESOL, _TSOFFSET):
                raise self._damage(f"option {code} of an interface description is there twice")
            seen.add(code)
            self._take_option(found, code, value, order)
        return found

    def _take_option(self, found: _Options, code: int, value: bytes, order: str) -> None:
        if code == _TSRESOL:
            try:
                found.clock = clock(value[0])
            except ValueError as error:
                raise self._damage(f"an interface's time resolution of {error} is too fine to count") from error
        elif code == _TSOFFSET:
            (found.offset,) = struct.unpack(order + "q", value)
        elif code == _NAME:
            found.name = value.split(b"\0")[0].decode("utf-8", "replace")
        elif code == _FCSLEN and value:
            found.fcs = value[0]

    def _truncated(self, wanted: int) -> CaptureError:
        return self._damage(f"truncated: the block takes {wanted} bytes, there are {self.window.held}")

    def _damage(self, reason: str) -> CaptureError:
        return CaptureError(reason, path=self.window.stream.name, offset=self.window.offset)


class _Options:
    """What an interface description's options say, with the defaults of the format."""

    def __init__(self) -> None:
        self.clock = clock(6)
        self.offset = 0
        self.name = ""
        self.fcs = 0
