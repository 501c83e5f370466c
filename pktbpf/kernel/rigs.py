"""The rigs by the name of their attach profile, and what they have in common."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from pktbpf.errors import UsageError
from pktbpf.kernel import attach
from pktbpf.kernel.observed import Observed

NAMES: tuple[str, ...] = ("unix", "packet", "packet-dgram", "udp", "raw-ip")


class Rig(Protocol):
    """Sockets of the live kernel with one program on them. profile: the attach profile that they stand for. linear:
    packets of up to so many bytes are certainly in one piece of memory; longer ones the kernel may scatter."""

    profile: str
    linear: int

    def attach_classic(self, code: bytes) -> int:
        """Put `struct sock_filter[]` in place of the program: 0 or the errno."""
        ...

    def attach_extended(self, program_fd: int) -> int:
        """Put a program loaded by bpf(2) in place: 0 or the errno."""
        ...

    def detach(self) -> int:
        """Take the program off."""
        ...

    def run(self, packets: Iterable[bytes | memoryview]) -> Observed:
        """Verdicts over packets: payloads for `unix`, Ethernet frames for the others."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SocketRig(Rig, Protocol):
    """A rig whose program sits on one socket, `filtered`."""

    filtered: socket.socket

    def attach_classic(self, code: bytes) -> int:
        """Put `struct sock_filter[]` on the socket: 0 or the errno. The old program is taken off first, since both
        would count against net.core.optmem_max at once."""
        attach.detach(self.filtered)
        return attach.attach_classic(self.filtered, code)

    def attach_extended(self, program_fd: int) -> int:
        """Put a program loaded by bpf(2) on the socket: 0 or the errno."""
        attach.detach(self.filtered)
        return attach.attach_extended(self.filtered, program_fd)

    def detach(self) -> int:
        """Take the program off: 0 or ENOENT."""
        return attach.detach(self.filtered)


def open_rig(name: str) -> Rig:
    """A rig by name. UsageError for an unknown one, KernelUnavailable where the kernel does not allow it."""
    if name == "unix":
        from pktbpf.kernel.unix_rig import UnixRig

        return UnixRig()
    if name in ("packet", "packet-dgram"):
        from pktbpf.kernel.packet_rig import PacketRig

        return PacketRig(datagram=name == "packet-dgram")
    if name in ("udp", "raw-ip"):
        from pktbpf.kernel.ip_rig import IpRig

        return IpRig(name)
    raise UsageError(f"unknown rig {name!r}; there are {', '.join(NAMES)}")
