"""What all engines share: the protocol, the attach profiles, the environment, and the outcome columns.

An engine prepares a Verified program once and then runs it over `Skbs` (packets as a socket sees them, see
`pktbpf.engine.skb`). The outcome is two columns: the program's u32 return value and a fault code.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pktbpf.errors import UsageError
from pktbpf.program import Verified


class Fault(enum.IntEnum):
    """Why a run did not end with the program's own verdict. Any value but NONE makes the verdict 0.

    INDETERMINATE: a load past the captured bytes but inside the wire length; the kernel would have seen those bytes.
    UNDELIVERED: the packet would never reach a socket of this attach profile (not UDP, not IP).
    The others can only happen to programs that `trust` let through unverified.
    """

    NONE = 0
    INDETERMINATE = 1
    UNDELIVERED = 2
    OPCODE = 3
    JUMP = 4
    MEMORY = 5
    BUDGET = 6
    CALL = 7
    DEPTH = 8
    CONTEXT = 9


class Layer(enum.Enum):
    """Where byte 0 of the program's packet is."""

    LINK = "link"
    NETWORK = "network"
    IP = "ip"  # the network layer of a socket that gets whole IPv4 packets only
    UDP = "udp"
    PAYLOAD = "payload"


@dataclass(frozen=True, slots=True)
class AttachProfile:
    """A kind of socket. floor: fewest bytes that an accepted packet keeps (sk_filter_trim_cap's cap; 0 for AF_PACKET,
    which trims to the return value alone). device: the skb has a device, hence ifindex and hatype."""

    name: str
    layer: Layer
    floor: int
    device: bool
    summary: str

    def kept(self, verdict: NDArray[np.uint32], length: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes kept of packets of `length` bytes (from byte 0), int64[n]; 0 where the verdict drops the packet."""
        wanted = np.maximum(verdict.astype(np.int64), self.floor)
        kept: NDArray[np.int64] = np.where(verdict == 0, 0, np.minimum(wanted, length))
        return kept


PROFILES: dict[str, AttachProfile] = {
    profile.name: profile
    for profile in (
        AttachProfile("packet", Layer.LINK, 0, True, "AF_PACKET SOCK_RAW: byte 0 is the link header"),
        AttachProfile("packet-dgram", Layer.NETWORK, 0, True, "AF_PACKET SOCK_DGRAM: byte 0 is the network header"),
        AttachProfile("udp", Layer.UDP, 8, True, "UDP socket: byte 0 is the UDP header, which survives any trim"),
        AttachProfile("raw-ip", Layer.IP, 1, True, "raw IP socket: byte 0 is the IP header"),
        AttachProfile("unix", Layer.PAYLOAD, 1, False, "AF_UNIX datagram: the bytes alone, no device, no headers"),
    )
}


def profile(name: str | AttachProfile) -> AttachProfile:
    """The attach profile called `name`; UsageError for an unknown one."""
    if isinstance(name, AttachProfile):
        return name
    if name not in PROFILES:
        raise UsageError(f"unknown attach profile {name!r}; there are {', '.join(PROFILES)}")
    return PROFILES[name]


@dataclass(frozen=True)
class Env:
    """Everything a run depends on that is neither program nor packet.

    metadata: values that override what the bytes and the profile say, by column name (`pktbpf.abi.context.COLUMNS`).
    mac: the capturing station's own address; tells host from other-host packets and marks outgoing ones. strip_vlan:
    take the outer VLAN tag out of the bytes, as a live socket sees the packet. seed: of the random numbers. cpu: number
    of the processor. boot_time: nanoseconds since 1970 at which ktime_get_ns is 0. socket_cookie, socket_uid,
    netns_cookie: what the socket helpers answer; the defaults are those of a packet that belongs to no socket yet, and
    of the first network namespace. budget: instructions of one run before it is cut off. kernel_btf: the kernel's own
    types, as pktbpf.verify takes them; programs that look into its structures need them. variables: values of the
    kernel's variables by name or part (`NAME`, `NAME[cpu].field`); all other bytes of them are zero.
    """

    metadata: Mapping[str, int] = field(default_factory=dict)
    mac: bytes | None = None
    strip_vlan: bool = False
    seed: int = 0
    cpu: int = 0
    boot_time: int = 0
    socket_cookie: int = 0
    socket_uid: int = 65534
    netns_cookie: int = 1
    budget: int = 1 << 24
    kernel_btf: Any = field(default=None, compare=False, repr=False)
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Skbs:
    """Packets as the socket's program sees them, n of them over one buffer.

    base: int64[n], index in data of the program's byte 0. length: int64[n], skb->len. captured: int64[n], how many of
    those bytes are in the buffer. head: int64[n], readable bytes in front of byte 0. meta: int64[n, len(COLUMNS)], or
    int64[0, len(COLUMNS)] when no program asked for it; then mac_offset and network_offset hold for every packet.
    delivered: bool[n], False where no such socket gets the packet.
    """

    data: NDArray[np.uint8]
    base: NDArray[np.int64]
    length: NDArray[np.int64]
    captured: NDArray[np.int64]
    head: NDArray[np.int64]
    meta: NDArray[np.int64]
    delivered: NDArray[np.bool_]
    mac_offset: int = 0
    network_offset: int = 0

    def __len__(self) -> int:
        return len(self.base)


@dataclass(slots=True)
class Outcome:
    """verdict: uint32[n], the program's return value, 0 where a fault stands. fault: uint8[n] of Fault."""

    verdict: NDArray[np.uint32]
    fault: NDArray[np.uint8]


class Runner(Protocol):
    """A program made ready by an engine. needs_meta: whether it looks at anything but bytes and lengths."""

    needs_meta: bool

    def run(self, skbs: Skbs) -> Outcome:
        """Run over all packets, in order; maps and random numbers go on from one call to the next."""
        ...


class Engine(Protocol):
    """Anything that can run programs; interchangeable."""

    name: str

    def prepare(self, verified: Verified, env: Env) -> Runner:
        """Make a program ready to run."""
        ...
