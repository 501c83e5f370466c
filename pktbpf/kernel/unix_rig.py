"""An unprivileged pair of AF_UNIX datagram sockets: any program over any bytes, the received length is the verdict.

Delivery is synchronous and a filtered datagram still reports success to its sender, so one non-blocking receive right
after each send decides, without a time-out. There is no device and no link header; the profile is `unix` (floor 1).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel.affinity import one_processor
from pktbpf.kernel.observed import DROPPED, Observed, Seen
from pktbpf.kernel.rigs import SocketRig

# What an unprivileged sender gets from net.core.wmem_default; a larger buffer is asked for below.
_BUFFER = 1 << 20


class UnixRig(SocketRig):
    """Attach a program, then `run` packets through it. A context manager; both sockets close at its end."""

    profile = "unix"
    linear = 15_000  # 16,064 was seen with pages of 4 KiB

    def __init__(self) -> None:
        if sys.platform != "linux":
            import errno

            raise KernelUnavailable(errno.ENOSYS, "AF_UNIX socket filters")
        try:
            self.filtered, self.sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError as error:
            raise KernelUnavailable(error.errno or 0, "AF_UNIX datagram sockets") from None
        self.sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.filtered.setblocking(False)
        self.sender.setblocking(False)
        self._space = memoryview(bytearray(self.largest + 1))

    @property
    def largest(self) -> int:
        """Bytes of the largest datagram that can be sent (the socket's send buffer, minus the kernel's own share)."""
        return self.sender.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - 32

    def lengths(self, packets: Iterable[bytes | memoryview]) -> list[int]:
        """Kept bytes per packet, DROPPED (-1) for a dropped one. Raises OSError (EMSGSIZE) beyond `largest`."""
        send, receive, space = self.sender.send, self.filtered.recv_into, self._space
        out = []
        for packet in packets:
            send(packet)
            try:
                out.append(receive(space))
            except BlockingIOError:
                out.append(DROPPED)
        return out

    def run(self, packets: Iterable[bytes | memoryview]) -> Observed:
        """The verdicts of the attached program over `packets`."""
        given = list(packets)
        with one_processor() as cpu:
            lengths = self.lengths(given)
            metadata = {"cpu": cpu, "network_offset": 0}
        return Observed.of(lengths, [Seen(packet, 0, len(packet), metadata) for packet in given])

    def close(self) -> None:
        """Close both sockets."""
        self.filtered.close()
        self.sender.close()
