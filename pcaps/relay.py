"""User-space wires for the recording lab, for VLANs without kernel support and for IP without Ethernet.

`relay.py tun OTHER_NAMESPACE`: a point-to-point link of two TUN devices, `tun0` here and `tun0` in the other namespace.
`relay.py vlan DEVICE TPID:TCI[,TPID:TCI] [NAME]`: a TAP device whose frames leave DEVICE with the tags pushed
(outermost first) and whose tagged counterparts come back untagged, which is what an 802.1Q subinterface does.
Both run until they are ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_TAP, _IFF_NO_PI = 1, 2, 0x1000
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_TP_STATUS_VLAN_VALID = 1 << 4
_CLONE_NEWNET = 0x40000000


def open_device(name: str, mode: int) -> int:
    """A TUN or TAP device in the current namespace, without the packet information header."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), mode | _IFF_NO_PI))
    return fd


def enter(namespace: str) -> None:
    """Move this thread into a named network namespace."""
    with Path("/run/netns", namespace).open() as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {namespace}")


def tun(namespace: str) -> None:
    """Carry packets between two TUN devices."""
    here = open_device("tun0", _IFF_TUN)
    enter(namespace)
    there = open_device("tun0", _IFF_TUN)
    while True:
        for fd in select.select([here, there], [], [])[0]:
            os.write(there if fd == here else here, os.read(fd, 65536))


def _received_tag(auxiliary: list[tuple[int, int, bytes]]) -> tuple[int, int] | None:
    """The (TPID, TCI) that the kernel took out of the frame, from PACKET_AUXDATA."""
    for _level, _kind, data in auxiliary:
        status, _len, _snaplen, _mac, _net, tci, tpid = struct.unpack("=IIIHHHH", data[:20])
        if status & _TP_STATUS_VLAN_VALID:
            return tpid, tci
    return None


def _matches(data: bytes, stack: list[tuple[int, int]]) -> bool:
    """Whether data begins with these tags, whatever their priority."""
    if len(data) < 4 * len(stack):
        return False
    found = list(struct.iter_unpack("!HH", data[: 4 * len(stack)]))
    return all(a[0] == b[0] and (a[1] ^ b[1]) & 0xFFF == 0 for a, b in zip(found, stack, strict=True))


def vlan(device: str, tags: str, name: str = "vlan0") -> None:
    """Push tags on the way out, match and pop them on the way in."""
    stack = [(int(tpid, 0), int(tci, 0)) for tpid, _, tci in (tag.partition(":") for tag in tags.split(","))]
    pushed = b"".join(struct.pack("!HH", *tag) for tag in stack)
    tap = open_device(name, _IFF_TAP)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    wire.bind((device, 3))
    wire.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    while True:
        for ready in select.select([tap, wire.fileno()], [], [])[0]:
            if ready == tap:
                frame = os.read(tap, 65536)
                wire.send(frame[:12] + pushed + frame[12:])
                continue
            frame, auxiliary, _flags, address = wire.recvmsg(65536, 256)
            outer = _received_tag(auxiliary)
            outgoing = address[2] == socket.PACKET_OUTGOING
            if outgoing or outer is None or outer[0] != stack[0][0] or (outer[1] ^ stack[0][1]) & 0xFFF:
                continue
            if _matches(frame[12:], stack[1:]):
                # a TAP that is not up yet answers EIO: the frame is lost, as on a wire into a port that is down
                with contextlib.suppress(OSError):
                    os.write(tap, frame[:12] + frame[12 + 4 * len(stack[1:]) :])


if __name__ == "__main__":
    if sys.argv[1] == "tun":
        tun(sys.argv[2])
    else:
        vlan(*sys.argv[2:])
