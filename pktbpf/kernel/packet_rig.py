"""AF_PACKET sockets on a TAP device in a network namespace: the verdict with real link headers and metadata.

Each frame is injected as received (or sent out, for outgoing ones). An unfiltered socket on the same device tells what
every program saw: bytes (a VLAN tag already taken out), protocol, packet type, tag. The kernel delivers to all sockets
of the device before the injection returns, so a non-blocking receive on the filtered socket decides.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator

from pktbpf.errors import KernelUnavailable
from pktbpf.kernel.affinity import one_processor
from pktbpf.kernel.namespace import LINEAR, NAME, Namespace, Tap
from pktbpf.kernel.observed import DROPPED, UNDELIVERED, Observed, Seen
from pktbpf.kernel.rigs import SocketRig

_SOL_PACKET, _PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23
_ETH_P_ALL = 0x0003
_AUXDATA = struct.Struct("=IIIHHHH")
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_SO_RCVBUFFORCE = 33
_SPACE = 1 << 17
_RECEIVE_BUFFER = 8 << 20
ETHERNET_HEADER = 14
_OUTGOING = 4


class PacketRig(SocketRig):
    """Profile `packet` (byte 0 is the link header) or, with `datagram`, `packet-dgram` (the network header)."""

    linear = LINEAR

    def __init__(self, *, datagram: bool = False) -> None:
        self.profile = "packet-dgram" if datagram else "packet"
        self._datagram = datagram
        with contextlib.ExitStack() as stack:
            self._space = Namespace()
            stack.callback(self._space.close)
            # Stray outgoing traffic (neighbour discovery) is also kept away by _PACKET_IGNORE_OUTGOING.
            self._space.configure("ipv6/conf/all/disable_ipv6", 1)
            self._space.configure("ipv6/conf/default/disable_ipv6", 1)
            self._tap = Tap(self._space)
            stack.callback(self._tap.close)
            self.ifindex = self._tap.ifindex
            self.filtered = stack.enter_context(self._socket(datagram))
            self._witness = stack.enter_context(self._socket(False))
            self._witness.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._buffer = memoryview(bytearray(_SPACE))
            self._undo = stack.pop_all()

    def _socket(self, datagram: bool) -> socket.socket:
        kind = socket.SOCK_DGRAM if datagram else socket.SOCK_RAW
        with self._space.entered():
            try:
                made = socket.socket(socket.AF_PACKET, kind, 0)
            except OSError as error:
                raise KernelUnavailable(error.errno or 0, "AF_PACKET sockets") from None
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            made.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            with self._space.entered():
                made.bind((NAME, _ETH_P_ALL))
        except OSError as error:
            made.close()
            raise KernelUnavailable(error.errno or 0, "an AF_PACKET socket on the TAP device") from None
        return made

    def run(self, packets: Iterable[bytes | memoryview]) -> Observed:
        """Frames coming in, each from its link header on: the verdicts of the attached program."""
        lengths: list[int] = []
        seen: list[Seen | None] = []
        with one_processor() as cpu:
            for packet in packets:
                if not self._tap.inject(packet):
                    lengths.append(UNDELIVERED)
                    seen.append(None)
                    continue
                self._collect(cpu, lengths, seen)
        return Observed.of(lengths, seen)

    def run_outgoing(self, packets: Iterable[bytes | memoryview]) -> Observed:
        """Frames sent out by another socket of this machine (packet type 4)."""
        lengths: list[int] = []
        seen: list[Seen | None] = []
        with self._space.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        with sender, self._outgoing_visible(), one_processor() as cpu:
            with self._space.entered():
                sender.bind((NAME, 0))
            for packet in packets:
                try:
                    sender.send(packet)
                except OSError:  # shorter than a header or longer than the device takes
                    lengths.append(UNDELIVERED)
                    seen.append(None)
                    continue
                self._tap.drain()
                self._collect(cpu, lengths, seen)
        return Observed.of(lengths, seen)

    @contextlib.contextmanager
    def _outgoing_visible(self) -> Iterator[None]:
        for sock in (self.filtered, self._witness):
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 0)
        try:
            yield
        finally:
            for sock in (self.filtered, self._witness):
                sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)

    def _collect(self, cpu: int, lengths: list[int], seen: list[Seen | None]) -> None:
        try:
            size, notes, _, source = self._witness.recvmsg_into([self._buffer], 64)
        except BlockingIOError:  # the kernel dropped it before any socket
            lengths.append(UNDELIVERED)
            seen.append(None)
            return
        frame = self._buffer[:size].tobytes()
        try:
            lengths.append(self.filtered.recv_into(self._buffer))
        except BlockingIOError:
            lengths.append(DROPPED)
        metadata = self._metadata(cpu, notes, source)
        # A sender's tags stay in the bytes, and the network header stands behind them.
        network = _behind_tags(frame) if metadata["pkt_type"] == _OUTGOING else ETHERNET_HEADER
        base = network if self._datagram else 0
        metadata |= {"mac_offset": -base, "network_offset": network - base}
        seen.append(Seen(frame, base, size - base, metadata))

    def _metadata(
        self, cpu: int, notes: list[tuple[int, int, bytes]], source: tuple[str, int, int, int, bytes]
    ) -> dict[str, int]:
        status, _, _, _, _, tci, tpid = _AUXDATA.unpack_from(
            next(data for _, kind, data in notes if kind == _PACKET_AUXDATA)
        )
        _, protocol, pkt_type, hatype, _ = source
        outgoing = pkt_type == _OUTGOING
        present = bool(status & _VLAN_VALID)
        return {
            "protocol": protocol,
            "pkt_type": pkt_type,
            "ifindex": self.ifindex,
            "ingress_ifindex": 0 if outgoing else self.ifindex,
            "hatype": hatype,
            "cpu": cpu,
            # The device counts receive queues from 1.
            "queue_mapping": 0 if outgoing else 1,
            "vlan_present": int(present),
            "vlan_tci": tci if present else 0,
            "vlan_proto": tpid if status & _VLAN_TPID_VALID else 0,
        }

    def close(self) -> None:
        """Close sockets, device and namespace."""
        self._undo.close()


def _behind_tags(frame: bytes) -> int:
    """Offset of what follows the link header and its VLAN tags; 14 where the tags are cut short."""
    offset = ETHERNET_HEADER
    while frame[offset - 2 : offset] in (b"\x81\x00", b"\x88\xa8"):
        offset += 4
        if offset > len(frame):
            return ETHERNET_HEADER
    return offset
