"""Pseudo headers in the byte order of the host that captured: turned into this host's, as libpcap does on reading.

Concerned are SocketCAN ids under LINUX_SLL, the two Linux USB headers and NFLOG's attribute headers, and only in files
of the other byte order. Filters and written copies then see what libpcap shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pktbpf.capture.batch import Interface
from pktbpf.capture.linktypes import LINUX_SLL, NFLOG, USB_LINUX, USB_LINUX_MMAPPED
from pktbpf.capture.window import Columns

LINKTYPES = frozenset((LINUX_SLL, USB_LINUX, USB_LINUX_MMAPPED, NFLOG))

_CAN_PROTOCOLS = (0x000C, 0x000D)
_SLL_BYTES = 16
# (offset, width) of the fields of a Linux USB header, in order; swapping ends at the first that was not captured.
_USB_FIELDS = ((0, 8), (12, 2), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4))
_USB_ISO_FIELDS = ((40, 4), (44, 4))
_USB_TAIL_FIELDS = ((48, 4), (52, 4), (56, 4), (60, 4))
_USB_TRANSFER_TYPE, _ISOCHRONOUS = 9, 0
_ISO_DESCRIPTOR_COUNT, _ISO_DESCRIPTORS, _ISO_DESCRIPTOR_BYTES = 60, 64, 16


def swap_rows(data: NDArray[np.uint8], columns: Columns, count: int, interfaces: Sequence[Interface]) -> None:
    """Swap the pseudo headers of the first `count` rows; for captures of the other byte order only."""
    for row in range(count):
        linktype = interfaces[int(columns.interface[row])].linktype
        if linktype in LINKTYPES:
            begin = int(columns.start[row])
            swap(data[begin : begin + int(columns.caplen[row])], linktype, int(columns.wirelen[row]))


def swap(packet: NDArray[np.uint8], linktype: int, wirelen: int) -> None:
    """Swap the host-order fields of one captured packet in place."""
    if linktype == LINUX_SLL:
        _swap_can(packet, wirelen)
    elif linktype == NFLOG:
        _swap_nflog(packet, wirelen)
    else:
        for offset, width in _usb_fields(packet, mapped=linktype == USB_LINUX_MMAPPED):
            if offset + width > len(packet):
                return
            _turn(packet, offset, width)


def _turn(packet: NDArray[np.uint8], offset: int, width: int) -> None:
    packet[offset : offset + width] = packet[offset : offset + width][::-1].copy()


def _swap_can(packet: NDArray[np.uint8], wirelen: int) -> None:
    if min(len(packet), wirelen) < _SLL_BYTES + 4:
        return
    if int(packet[14]) << 8 | int(packet[15]) in _CAN_PROTOCOLS:
        _turn(packet, _SLL_BYTES, 4)


def _usb_fields(packet: NDArray[np.uint8], *, mapped: bool) -> Iterator[tuple[int, int]]:
    """The fields to swap, in order; each is swapped before the next is asked for."""
    yield from _USB_FIELDS
    isochronous = len(packet) > _USB_TRANSFER_TYPE and packet[_USB_TRANSFER_TYPE] == _ISOCHRONOUS
    if isochronous:
        yield from _USB_ISO_FIELDS
    if not mapped:
        return
    yield from _USB_TAIL_FIELDS
    if isochronous:
        count = int.from_bytes(packet[_ISO_DESCRIPTOR_COUNT : _ISO_DESCRIPTOR_COUNT + 4].tobytes(), "little")
        for number in range(count):
            base = _ISO_DESCRIPTORS + number * _ISO_DESCRIPTOR_BYTES
            yield from ((base, 4), (base + 4, 4), (base + 8, 4))


def _swap_nflog(packet: NDArray[np.uint8], wirelen: int) -> None:
    if min(len(packet), wirelen) < 4 or packet[1] != 0:
        return
    at = 4
    while len(packet) - at >= 4:
        _turn(packet, at, 2)
        _turn(packet, at + 2, 2)
        size = ((int(packet[at]) | int(packet[at + 1]) << 8) + 3 & ~3) & 0xFFFF
        if size < 4 or min(len(packet), wirelen) - at < size:
            return
        at += size
