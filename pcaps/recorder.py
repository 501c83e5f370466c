"""Recorders for what tcpdump cannot write: pcapng with several interfaces, and netlink messages without nlmon.

`recorder.py pcapng FILE SECONDS DEVICE...`: all packets of the devices, one interface block each, as they arrive.
`recorder.py netlink FILE`: the rtnetlink messages of a few requests and their answers, as link type NETLINK.
Both end by themselves.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

_LINKTYPES = {1: 1, 772: 1, 65534: 101}  # ARPHRD: Ethernet, loopback, none (TUN) -> LINKTYPE
_NETLINK_ROUTE, _ARPHRD_NETLINK, _LINKTYPE_NETLINK = 0, 824, 253
_OUTGOING, _HOST = 4, 0


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _block(kind: int, body: bytes) -> bytes:
    total = len(body) + 12
    return struct.pack("<II", kind, total) + body + struct.pack("<I", total)


def _interface(device: str, linktype: int, resolution: int) -> bytes:
    options = _option(2, device.encode()) + _option(9, bytes([resolution])) + _option(0, b"")
    return _block(1, struct.pack("<HHI", linktype, 0, 262144) + options)


def pcapng(path: str, seconds: str, *devices: str) -> None:
    """Odd interfaces count microseconds, even ones nanoseconds; the first packet carries a comment."""
    sockets: list[socket.socket] = []
    with Path(path).open("wb") as out:
        out.write(
            _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(4, b"pktbpf lab") + _option(0, b""))
        )
        for index, device in enumerate(devices):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.bind((device, 3))
            sockets.append(sock)
            out.write(_interface(device, _LINKTYPES[sock.getsockname()[3]], 9 if index % 2 else 6))
        print("listening on", *devices, file=sys.stderr, flush=True)
        _record(out, sockets, time.monotonic() + float(seconds))


def _record(out: BinaryIO, sockets: list[socket.socket], end: float) -> None:
    comment = _option(1, b"first packet of the lab") + _option(0, b"")
    while (left := end - time.monotonic()) > 0:
        for sock in select.select(sockets, [], [], left)[0]:
            index = sockets.index(sock)
            data = sock.recv(65536)
            stamp = time.time_ns() // (1 if index % 2 else 1000)
            head = struct.pack("<IIIII", index, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
            out.write(_block(6, head + data + bytes(-len(data) % 4) + comment))
            comment = b""


def _netlink_record(direction: int, data: bytes) -> bytes:
    """Cooked header as the kernel's nlmon device gives it (packet type, ARPHRD_NETLINK, protocol), then the message."""
    packet = struct.pack("!HH10xH", direction, _ARPHRD_NETLINK, _NETLINK_ROUTE) + data
    stamp = time.time_ns() // 1000
    return struct.pack("<IIII", stamp // 1_000_000, stamp % 1_000_000, len(packet), len(packet)) + packet


def _request(kind: int, flags: int, sequence: int) -> bytes:
    """struct nlmsghdr with a struct rtgenmsg of family AF_UNSPEC."""
    return struct.pack("=IHHIIB3x", 20, kind, flags, sequence, 0, 0)


def netlink(path: str) -> None:
    """Dumps of links, addresses and neighbours, one refused request, then the notifications of two changes."""
    groups = 0x1 | 0x10 | 0x100 | 0x4  # link, IPv4 and IPv6 addresses, neighbours
    with Path(path).open("wb") as out, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as sock:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, _LINKTYPE_NETLINK))
        sock.bind((0, groups))
        sock.settimeout(0.5)
        for sequence, kind in enumerate((18, 22, 30, 255), 1):
            request = _request(kind, 0x5 if kind == 255 else 0x301, sequence)
            out.write(_netlink_record(_OUTGOING, request))
            sock.send(request)
            _drain(out, sock)
        for command in (
            "address add 198.51.100.7/32 dev eth0",
            "link set eth0 mtu 1400",
            "address del 198.51.100.7/32 dev eth0",
        ):
            subprocess.run(["ip", *command.split()], check=True)
            _drain(out, sock)


def _drain(out: BinaryIO, sock: socket.socket) -> None:
    while True:
        try:
            out.write(_netlink_record(_HOST, sock.recv(65536)))
        except TimeoutError:
            return


if __name__ == "__main__":
    if sys.argv[1] == "pcapng":
        pcapng(*sys.argv[2:])
    else:
        netlink(sys.argv[2])
