"""One rtnetlink request: make every address of a family local, so that a rig receives whatever a capture holds."""

from __future__ import annotations

import errno
import os
import socket
import struct

_NETLINK_ROUTE = 0
_RTM_NEWROUTE = 24
_REQUEST, _ACK, _CREATE, _REPLACE = 0x1, 0x4, 0x400, 0x100
_TABLE_LOCAL, _PROTOCOL_STATIC, _SCOPE_HOST, _TYPE_LOCAL = 255, 4, 254, 2
_RTA_OIF, _RTA_PRIORITY = 4, 6
_NLMSG_ERROR = 2


def accept_every_address(family: int, loopback_index: int = 1) -> None:
    """`local default dev lo` in the local table of the namespace the caller is in. Raises OSError."""
    attributes = struct.pack("=HHiHHI", 8, _RTA_OIF, loopback_index, 8, _RTA_PRIORITY, 1)
    body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _TABLE_LOCAL, _PROTOCOL_STATIC, _SCOPE_HOST, _TYPE_LOCAL, 0)
    size = 16 + len(body) + len(attributes)
    header = struct.pack("=IHHII", size, _RTM_NEWROUTE, _REQUEST | _ACK | _CREATE | _REPLACE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_ROUTE) as link:
        link.send(header + body + attributes)
        answer = link.recv(4096)
    kind = struct.unpack_from("=H", answer, 4)[0]
    number = -struct.unpack_from("=i", answer, 16)[0] if kind == _NLMSG_ERROR else errno.EPROTO
    if number:
        raise OSError(number, os.strerror(number))
