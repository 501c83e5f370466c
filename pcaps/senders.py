"""Small senders of traffic that no everyday client makes: TCP behind IP options, UDP to port 80, and so on.

Run as `senders.py NAME [ARGUMENTS]` inside a namespace of the recording lab. Each sends a fixed number of packets to
addresses of that lab and ends by itself.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

SENDERS: dict[str, Callable[..., None]] = {}


def sender(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function under its name with dashes."""
    SENDERS[function.__name__.replace("_", "-")] = function
    return function


def _get(sock: socket.socket, host: str) -> None:
    sock.settimeout(5)
    sock.connect((host, 80))
    sock.sendall(b"GET / HTTP/1.0\r\nHost: www.example.test\r\n\r\n")
    while sock.recv(4096):
        continue


@sender
def http_ip_options(host: str) -> None:
    """One HTTP request whose IPv4 headers carry four bytes of options (three NOPs and an end of list)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x01\x01\x00")
        _get(sock, host)


@sender
def http_destination_options(host: str) -> None:
    """One HTTP request behind an IPv6 destination options header (one PadN option)."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, b"\x00\x00\x01\x04\x00\x00\x00\x00")
        _get(sock, host)


@sender
def udp(host: str, port: str, size: str = "32", count: str = "1") -> None:
    """`count` UDP datagrams of `size` bytes; a size above the link's MTU makes the kernel fragment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for number in range(int(count)):
            sock.sendto(bytes((number + i) & 0xFF for i in range(int(size))), (host, int(port)))


if __name__ == "__main__":
    SENDERS[sys.argv[1]](*sys.argv[2:])
