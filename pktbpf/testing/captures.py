"""Packets for tests: bytes from whatever a test has, and captures that remember which packet is which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pktbpf.errors import UsageError

_OFFSET = re.compile(r"^\s*(?:0x)?[0-9a-fA-F]{4,8}:?\s{1,}(?=[0-9a-fA-F]{2})", re.MULTILINE)


class CapturedPacket(bytes):
    """The captured bytes of a packet. number: from 1. wirelen: bytes it had on the wire. timestamp: ns since 1970.
    linktype: DLT of its interface. capture: name of the file."""

    number: int
    wirelen: int
    timestamp: int
    linktype: int
    capture: str

    @classmethod
    def of(cls, data: bytes, *, number: int, wirelen: int, timestamp: int, linktype: int, capture: str) -> Self:
        """From its parts."""
        made = cls(data)
        made.number, made.wirelen, made.timestamp = number, wirelen, timestamp
        made.linktype, made.capture = linktype, capture
        return made

    def __repr__(self) -> str:
        return f"<packet {self.number} of {self.capture}, {len(self)} bytes>"


class CaptureUnderTest:
    """A capture whose packets are read when first asked for. Iterates over packets; `packet(n)` counts from 1 as
    tcpdump -# and Wireshark do, an index from 0 as Python does."""

    def __init__(self, path: str | Path, name: str | None = None):
        self.path = Path(path)
        self.name = name or str(path)
        self._packets: list[CapturedPacket] | None = None

    @property
    def packets(self) -> list[CapturedPacket]:
        """All packets. Raises CaptureError for a damaged file."""
        if self._packets is None:
            from pktbpf.capture.open import open_capture

            found = []
            with open_capture(self.path) as source:
                for batch in source:
                    found += [
                        CapturedPacket.of(
                            batch.packet(row), number=batch.first + row, wirelen=int(batch.wirelen[row]),
                            timestamp=int(batch.timestamp[row]), linktype=batch.linktype(row), capture=self.name,
                        )
                        for row in range(len(batch))
                    ]  # fmt: skip
            self._packets = found
        return self._packets

    def packet(self, number: int) -> CapturedPacket:
        """Packet `number`, from 1. UsageError where there is none."""
        if not 1 <= number <= len(self.packets):
            raise UsageError(f"{self.name} has {len(self.packets)} packets, there is no packet {number}")
        return self.packets[number - 1]

    def __iter__(self) -> Iterator[CapturedPacket]:
        return iter(self.packets)

    def __len__(self) -> int:
        return len(self.packets)

    def __getitem__(self, index: int) -> CapturedPacket:
        return self.packets[index]

    def __repr__(self) -> str:
        return f"<capture {self.name}>"


def as_packet(packet: Any) -> bytes:
    """The bytes of a packet given as bytes, hexadecimal text (spaces, colons, hexdump offsets allowed), or an object
    that turns into bytes (scapy, dpkt). UsageError for anything else."""
    if isinstance(packet, CapturedPacket):
        return packet
    if isinstance(packet, bytes | bytearray | memoryview):
        return bytes(packet)
    if isinstance(packet, str):
        text = _OFFSET.sub("", packet) if "\n" in packet.strip() else packet
        digits = re.sub(r"[\s:.\-]|0x", "", text)
        try:
            return bytes.fromhex(digits)
        except ValueError:
            raise UsageError(f"{packet[:40]!r} is not hexadecimal; a packet is bytes, hex, scapy or dpkt") from None
    if hasattr(packet, "__bytes__"):
        return bytes(packet)
    raise UsageError(f"cannot make a packet of {type(packet).__name__}; give bytes, hex, scapy or dpkt")
