"""UDP and raw IP sockets behind a TAP device: the verdict where the IP stack has already walked the headers.

Every address is local in the rig's namespace, and each frame's destination MAC is set to the device's, so that real
captures reach the sockets as they are. A first pass without a program finds out which packets the stack delivers at all
(checksums, fragments, multicast); only those are undergone by the filter. Profiles: `udp` (byte 0 is the UDP header,
floor 8) over IPv4 and IPv6, `raw-ip` (byte 0 is the IP header, floor 1) over IPv4.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import attach
from pktbpf.kernel.affinity import one_processor
from pktbpf.kernel.namespace import LINEAR, MAC, NAME, Namespace, Tap
from pktbpf.kernel.observed import DROPPED, UNDELIVERED, Observed, Seen
from pktbpf.kernel.rigs import Rig
from pktbpf.kernel.routing import accept_every_address

_ETHERNET = 14
_SPACE = 1 << 17
_SOCKETS = 128  # kept open at once, one per port or protocol
_UDP_HEADER = 8
_SO_RCVBUFFORCE = 33
# IPv6 extension headers that may stand in front of UDP and that the stack walks over: hop-by-hop, destination options.
_EXTENSIONS = (0, 60)

Key = tuple[int, int]


class IpRig(Rig):
    """`udp` or `raw-ip`. One socket per destination port or IP protocol is opened when a packet asks for it."""

    linear = LINEAR

    def __init__(self, profile: str) -> None:
        if profile not in ("udp", "raw-ip"):
            raise ValueError(f"no IP rig for profile {profile!r}")
        self.profile = profile
        self._put: Callable[[socket.socket], int] | None = None
        self._sockets: OrderedDict[Key, socket.socket] = OrderedDict()
        self._buffer = memoryview(bytearray(_SPACE))
        with contextlib.ExitStack() as stack:
            self._space = Namespace()
            stack.callback(self._space.close)
            self._tap = Tap(self._space)
            stack.callback(self._tap.close)
            stack.callback(self._close_sockets)
            self.ifindex = self._tap.ifindex
            self._route()
            self._undo = stack.pop_all()

    def _route(self) -> None:
        for scope in ("all", NAME):
            for key, value in (("rp_filter", 0), ("accept_local", 1), ("send_redirects", 0), ("route_localnet", 1)):
                self._space.configure(f"ipv4/conf/{scope}/{key}", value)
        with self._space.entered():
            try:
                accept_every_address(socket.AF_INET)
            except OSError as error:
                raise KernelUnavailable(error.errno or 0, "a route of the rig's namespace") from None
            # A kernel without IPv6 delivers no IPv6 packet, which the first pass then reports.
            with contextlib.suppress(OSError):
                accept_every_address(socket.AF_INET6)

    def attach_classic(self, code: bytes) -> int:
        """Use `struct sock_filter[]` from now on: 0 or the errno."""
        return self._try(lambda sock: attach.attach_classic(sock, code))

    def attach_extended(self, program_fd: int) -> int:
        """Use a program loaded by bpf(2) from now on: 0 or the errno."""
        return self._try(lambda sock: attach.attach_extended(sock, program_fd))

    def detach(self) -> int:
        """Use no program from now on."""
        self._put = None
        for sock in self._sockets.values():
            attach.detach(sock)
        return 0

    def _try(self, put: Callable[[socket.socket], int]) -> int:
        with self._space.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            number = put(probe)
        if not number:
            self._put = put
        return number

    def run(self, packets: Iterable[bytes | memoryview]) -> Observed:
        """Ethernet frames: the verdicts of the program in use over those that the IP stack delivers."""
        frames = [self._addressed(packet) for packet in packets]
        put, self._put = self._put, None
        self._close_sockets()
        with one_processor() as cpu:
            places = [self._place(frame) for frame in frames]
            try:
                free = [self._length(frame, place) for frame, place in zip(frames, places, strict=True)]
            finally:
                self._close_sockets()
                self._put = put
            lengths: list[int] = []
            seen: list[Seen | None] = []
            for frame, place, whole in zip(frames, places, free, strict=True):
                if place is None or whole < 0:
                    lengths.append(UNDELIVERED)
                    seen.append(None)
                    continue
                lengths.append(self._length(frame, place))
                seen.append(self._seen(frame, place, whole, cpu))
        self._close_sockets()
        return Observed.of(lengths, seen)

    def _seen(self, frame: bytes, place: tuple[Key, int], whole: int, cpu: int) -> Seen:
        (family, _), base = place
        metadata = {
            "protocol": 0x0800 if family == socket.AF_INET else 0x86DD,
            "ifindex": self.ifindex,
            "ingress_ifindex": self.ifindex,
            "hatype": 1,
            "cpu": cpu,
            "queue_mapping": 1,  # the device counts receive queues from 1
            "mac_offset": -base,
            "network_offset": _ETHERNET - base,
        }
        return Seen(frame, base, whole, metadata)

    @staticmethod
    def _addressed(packet: bytes | memoryview) -> bytes:
        frame = bytes(packet)
        return MAC + frame[6:] if len(frame) >= _ETHERNET else frame

    def _place(self, frame: bytes) -> tuple[Key, int] | None:
        """Which socket a frame is for, and where byte 0 of the program's packet is; None for no such socket."""
        if self.profile == "raw-ip":
            if frame[12:14] != b"\x08\x00" or len(frame) < _ETHERNET + 20:
                return None
            if not frame[_ETHERNET + 9]:  # no raw socket can ask for protocol 0
                return None
            return (socket.AF_INET, frame[_ETHERNET + 9]), _ETHERNET
        found = _udp_offset(frame)
        if found is None or found[1] + _UDP_HEADER > len(frame):
            return None
        port = int.from_bytes(frame[found[1] + 2 : found[1] + 4], "big")
        return ((found[0], port), found[1]) if port else None

    def _length(self, frame: bytes, place: tuple[Key, int] | None) -> int:
        """Inject once and receive: bytes kept counted from byte 0, DROPPED or UNDELIVERED."""
        if place is None:
            return UNDELIVERED
        sock = self._socket(place[0])
        if not self._tap.inject(frame):
            return UNDELIVERED
        try:
            size = sock.recv_into(self._buffer)
        except BlockingIOError:
            return DROPPED
        except ConnectionError:  # an ICMP error that the capture holds was meant for this port
            return UNDELIVERED
        return size + _UDP_HEADER if self.profile == "udp" else size

    def _socket(self, key: Key) -> socket.socket:
        if key in self._sockets:
            self._sockets.move_to_end(key)
            return self._sockets[key]
        if len(self._sockets) >= _SOCKETS:
            self._sockets.popitem(last=False)[1].close()
        family, number = key
        with self._space.entered():
            if self.profile == "udp":
                sock = socket.socket(family, socket.SOCK_DGRAM)
            else:
                sock = socket.socket(family, socket.SOCK_RAW, number)
        self._sockets[key] = sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, NAME.encode())
        refused = self._put(sock) if self._put is not None else 0
        if refused:  # without its program the socket would accept everything
            raise OSError(refused, f"{os.strerror(refused)}: the program on another socket of the {self.profile} rig")
        if self.profile == "udp":
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", number))
        return sock

    def _close_sockets(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def close(self) -> None:
        """Close sockets, device and namespace."""
        self._undo.close()


def _udp_offset(frame: bytes) -> tuple[int, int] | None:
    """(address family, offset of the UDP header) of an untagged frame with an unfragmented UDP packet."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and len(frame) >= _ETHERNET + 20 and frame[_ETHERNET + 9] == socket.IPPROTO_UDP:
        if frame[_ETHERNET + 6] & 0x3F or frame[_ETHERNET + 7]:
            return None
        return socket.AF_INET, _ETHERNET + 4 * (frame[_ETHERNET] & 15)
    if kind == b"\x86\xdd" and len(frame) >= _ETHERNET + 40:
        following, offset = frame[_ETHERNET + 6], _ETHERNET + 40
        while following in _EXTENSIONS and offset + 2 <= len(frame):
            following, offset = frame[offset], offset + 8 * (frame[offset + 1] + 1)
        return (socket.AF_INET6, offset) if following == socket.IPPROTO_UDP else None
    return None
