"""The pcap format: micro- and nanosecond, either byte order, Kuznetzov's longer records, the old length orders.

What is accepted and refused is what libpcap's savefile reader accepts and refuses: versions 2.0 to 2.4 and 543.0, a
packet longer than the snapshot length is cut to it, one longer than the link type can sanely have is damage.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pktbpf.capture import linktypes, pseudo
from pktbpf.capture.batch import Interface
from pktbpf.capture.window import Columns, Window
from pktbpf.errors import CaptureError

MICRO, NANO, KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
MAGICS = frozenset(
    struct.pack(order, magic) for order in ("<I", ">I") for magic in (MICRO, NANO, KUZNETZOV)
)  # fmt: skip
HEADER_BYTES = 24


@dataclass(frozen=True, slots=True)
class Header:
    """What the file header says. linktype: DLT. class_bits: the upper bits of the link type field (FCS length)."""

    big: bool
    magic: int
    version: tuple[int, int]
    snaplen: int
    linktype: int
    class_bits: int

    @property
    def nanosecond(self) -> bool:
        """Whether time stamps have nanoseconds."""
        return self.magic == NANO

    @property
    def record_bytes(self) -> int:
        """Bytes of a record's header."""
        return 24 if self.magic == KUZNETZOV else 16

    @property
    def length_order(self) -> int:
        """0 captured length first, 1 whichever is smaller (2.3 was written both ways), 2 wire length first."""
        if self.version[0] == 543 or self.version < (2, 3):
            return 2
        return 1 if self.version == (2, 3) else 0


def read_header(window: Window) -> Header:
    """Consume and check the 24 bytes of the file header; the magic is known to be right."""
    name = window.stream.name
    if not window.need(HEADER_BYTES):
        raise CaptureError(
            f"truncated: the file header takes {HEADER_BYTES} bytes, there are {window.held}", path=name, offset=0
        )
    raw = window.take(HEADER_BYTES)
    order = ">" if raw[0] == 0xA1 else "<"
    magic, major, minor, _zone, _digits, snaplen, field = struct.unpack(order + "IHHiIII", raw)
    if (major, minor) != (543, 0) and not (major == 2 and minor <= 4):
        raise CaptureError(f"pcap version {major}.{minor} is not supported (2.0 to 2.4 are)", path=name, offset=4)
    linktype = linktypes.from_file(field & 0x03FFFFFF)
    limit = linktypes.adjust_snaplen(linktype, snaplen)
    if magic == KUZNETZOV and linktype == linktypes.EN10MB:
        limit = min(limit + 14, 0x7FFFFFFF)  # cooked captures of that patch got a made-up Ethernet header on top
    return Header(order == ">", magic, (major, minor), limit, linktype, field & 0xFC000000)


class PcapReader:
    """Walks the records of one pcap file."""

    format = "pcap"

    def __init__(self, window: Window):
        self.window = window
        self.header = read_header(window)
        fcs = (self.header.class_bits >> 28) * 2 if self.header.class_bits & 0x04000000 else 0
        resolution = 1_000_000_000 if self.header.nanosecond else 1_000_000
        self.interfaces = [Interface(self.header.linktype, self.header.snaplen, resolution, "", fcs)]
        self.largest = linktypes.max_snaplen(self.header.linktype)
        self.clamped = 0

    def fill(self, columns: Columns) -> int:
        """Fill the columns from the window; the count of rows, 0 at the end. Damage is raised when no row is left."""
        from pktbpf.capture import walk

        window, header = self.window, self.header
        state = np.zeros(walk.STATE_WORDS, dtype=np.int64)
        while True:
            count = walk.walk_pcap(
                window.data, window.begin, window.end, 0, header.big, header.record_bytes, header.length_order,
                1 if header.nanosecond else 1000, header.snaplen, self.largest,
                columns.start, columns.caplen, columns.wirelen, columns.timestamp, state,
            )  # fmt: skip
            window.begin = int(state[walk.NEXT])
            if count:
                if header.big and header.linktype in pseudo.LINKTYPES:
                    pseudo.swap_rows(window.data, columns, count, self.interfaces)
                return int(count)
            if state[walk.STATUS] == walk.BAD_CAPLEN:
                raise self._damage(
                    f"captured length {state[walk.DETAIL]} is more than a packet can have ({self.largest} bytes)"
                )
            if not window.need(int(state[walk.DETAIL])):
                if window.held == 0:
                    return 0
                raise self._damage(
                    f"truncated: the packet record takes {state[walk.DETAIL]} bytes, there are {window.held}"
                )

    def _damage(self, reason: str) -> CaptureError:
        return CaptureError(reason, path=self.window.stream.name, offset=self.window.offset)
