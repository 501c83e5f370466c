"""Captures written by hand, field by field, and libpcap itself as the judge of what a capture holds."""

from __future__ import annotations

import random
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pktbpf.capture.open import open_capture
from pktbpf.errors import CaptureError

MICRO, NANO, KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
EVERYTHING = 1 << 40


@dataclass(frozen=True)
class Packet:
    """What a reader should give back. time: ns."""

    data: bytes
    wirelen: int
    time: int = 0
    interface: int = 0


@dataclass
class Outcome:
    """All packets of a capture and how it ended: None for a clean end."""

    packets: list[Packet] = field(default_factory=list)
    error: str | None = None
    offset: int | None = None


def read(source, **options) -> Outcome:
    """What pktbpf gives."""
    outcome = Outcome()
    try:
        with open_capture(source, **options) as capture:
            for batch in capture:
                assert batch.first == len(outcome.packets) + 1
                for row in range(len(batch)):
                    outcome.packets.append(
                        Packet(
                            batch.packet(row),
                            int(batch.wirelen[row]),
                            int(batch.timestamp[row]),
                            int(batch.interface[row]),
                        )
                    )
    except CaptureError as error:
        outcome.error, outcome.offset = error.reason, error.offset
    if outcome.error and "\n" in outcome.error:
        raise AssertionError(f"not one line: {outcome.error!r}")
    return outcome


def libpcap(data: bytes) -> Outcome:
    """What libpcap gives, times in microseconds."""
    import pcapy

    outcome = Outcome()
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(data)
        file.flush()
        try:
            reader = pcapy.open_offline(file.name)
            while True:
                header, packet = reader.next()
                if header is None:
                    break
                seconds, micros = header.getts()
                time = seconds * 1_000_000_000 + micros * 1_000
                outcome.packets.append(Packet(packet, header.getlen(), time))
        except pcapy.PcapError as error:
            outcome.error = str(error)
    return outcome


def pcap_header(
    order="<", magic=MICRO, version=(2, 4), snaplen=65_535, linktype=1
) -> bytes:  # fmt: skip
    return struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, linktype)


def pcap_record(packet: Packet, order="<", magic=MICRO, *, wire_first=False) -> bytes:
    seconds, fraction = divmod(packet.time, 1_000_000_000)
    lengths = (len(packet.data), packet.wirelen)
    raw = struct.pack(
        order + "IIII", seconds, fraction // (1 if magic == NANO else 1000), *(lengths[::-1] if wire_first else lengths)
    )
    if magic == KUZNETZOV:
        raw += struct.pack(order + "IHBx", 3, 0x800, 4)
    return raw + packet.data


def pcap(packets, order="<", magic=MICRO, version=(2, 4), snaplen=65_535, linktype=1) -> bytes:
    wire_first = version < (2, 3) or version[0] == 543
    records = (pcap_record(packet, order, magic, wire_first=wire_first) for packet in packets)
    return pcap_header(order, magic, version, snaplen, linktype) + b"".join(records)


def block(kind: int, body: bytes, order="<") -> bytes:
    total = len(body) + 12
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def option(code: int, value: bytes, order="<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order="<", options=b"", version=(1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1) + options, order)


def interface(order="<", linktype=1, snaplen=0, tsresol=None, tsoffset=None, name=None) -> bytes:
    options = option(2, name.encode(), order) if name else b""
    if tsresol is not None:
        options += option(9, bytes([tsresol]), order)
    if tsoffset is not None:
        options += option(14, struct.pack(order + "q", tsoffset), order)
    options += option(0, b"", order) if options else b""
    return block(1, struct.pack(order + "HHI", linktype, 0, snaplen) + options, order)


def enhanced(data: bytes, ticks: int, order="<", card=0, wirelen=None, options=b"") -> bytes:
    wirelen = len(data) if wirelen is None else wirelen
    fields = struct.pack(order + "IIIII", card, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wirelen)
    return block(6, fields + data + bytes(-len(data) % 4) + options, order)


def obsolete(data: bytes, ticks: int, order="<", card=0, wirelen=None) -> bytes:
    wirelen = len(data) if wirelen is None else wirelen
    fields = struct.pack(order + "HHIIII", card, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(data), wirelen)
    return block(2, fields + data + bytes(-len(data) % 4), order)


def simple(data: bytes, order="<", wirelen=None) -> bytes:
    wirelen = len(data) if wirelen is None else wirelen
    return block(3, struct.pack(order + "I", wirelen) + data + bytes(-len(data) % 4), order)


def random_packets(seed: int, count: int = 20, longest: int = 120, unit: int = 1000) -> list[Packet]:
    """Packets with whole multiples of `unit` ns as times."""
    source = random.Random(seed)
    packets = []
    for number in range(count):
        data = source.randbytes(source.randrange(longest))
        fraction = source.randrange(1_000_000_000 // unit) * unit
        time = (1_700_000_000 + number) * 1_000_000_000 + fraction
        packets.append(Packet(data, len(data) + source.choice([0, 0, 5]), time))
    return packets


def generator():
    """The module bench/generate.py."""
    import importlib.util
    import sys

    path = Path(__file__).parents[2] / "bench" / "generate.py"
    spec = importlib.util.spec_from_file_location("bench_generate", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_generate"] = module
    spec.loader.exec_module(module)
    return module


def mutate(data: bytes, source: random.Random) -> bytes:
    """A damaged copy: bytes changed, lengths made extreme, parts cut, doubled or moved."""
    raw = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 4])):
        at = source.randrange(len(raw) + 1)
        action = source.randrange(6)
        if action == 0 and at < len(raw):
            raw[at] = source.randrange(256)
        elif action == 1:
            value = source.choice([0, 1, 3, 4, 12, 13, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF, 1 << 24])
            at &= ~3
            raw[at : at + 4] = struct.pack(source.choice("<>") + "I", value)
        elif action == 2:
            del raw[at:]
        elif action == 3:
            del raw[at : at + source.randrange(1, 40)]
        elif action == 4:
            raw[at:at] = raw[at : at + source.randrange(1, 60)]
        elif at < len(raw):
            raw[at] ^= 1 << source.randrange(8)
        if not raw:
            break
    return bytes(raw)
