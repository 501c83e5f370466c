"""The classic extensions: `ld [SKF_AD_OFF + n]` reads metadata instead of bytes (uapi linux/filter.h).

One row per extension: its offset, its name in the kernel's header, the word bpf_asm has for it, and the field of
`struct __sk_buff` that user space can load in its place (None where the kernel uses an internal function).
"""

from __future__ import annotations

from dataclasses import dataclass

SKF_AD_OFF = -0x1000
SKF_NET_OFF = -0x100000
SKF_LL_OFF = -0x200000
AD_BASE = SKF_AD_OFF & 0xFFFFFFFF
NET_BASE = SKF_NET_OFF & 0xFFFFFFFF
LL_BASE = SKF_LL_OFF & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Ancillary:
    """offset: added to SKF_AD_OFF. word: bpf_asm's name. field: `__sk_buff` field, None for an internal function."""

    name: str
    offset: int
    word: str
    field: str | None
    summary: str

    @property
    def k(self) -> int:
        """The K of the load, as u32."""
        return AD_BASE + self.offset


ROWS: tuple[Ancillary, ...] = (
    Ancillary("PROTOCOL", 0, "proto", "protocol", "EtherType of the packet, host order"),
    Ancillary("PKTTYPE", 4, "type", "pkt_type", "0 host, 1 broadcast, 2 multicast, 3 other host, 4 outgoing"),
    Ancillary("IFINDEX", 8, "ifidx", "ifindex", "interface index; without a device the filter ends with A"),
    Ancillary("NLATTR", 12, "nla", None, "offset of netlink attribute X, searched from offset A; 0 if none"),
    Ancillary("NLATTR_NEST", 16, "nlan", None, "the same inside the attribute at offset A"),
    Ancillary("MARK", 20, "mark", "mark", "skb mark"),
    Ancillary("QUEUE", 24, "queue", "queue_mapping", "receive queue, 16 bits"),
    Ancillary("HATYPE", 28, "hatype", None, "ARPHRD type of the device; without a device the filter ends with A"),
    Ancillary("RXHASH", 32, "rxhash", "hash", "receive hash"),
    Ancillary("CPU", 36, "cpu", None, "number of the processor that runs the filter"),
    Ancillary("ALU_XOR_X", 40, "xor x", None, "A ^= X, not a load"),
    Ancillary("VLAN_TAG", 44, "vlan_tci", "vlan_tci", "whole tag control information of the stripped tag"),
    Ancillary("VLAN_TAG_PRESENT", 48, "vlan_avail", "vlan_present", "1 if a tag was stripped, else 0"),
    Ancillary("PAY_OFFSET", 52, "poff", None, "offset of the payload, as the flow dissector finds it"),
    Ancillary("RANDOM", 56, "rand", None, "32 random bits"),
    Ancillary("VLAN_TPID", 60, "vlan_tpid", "vlan_proto", "tag protocol identifier, host order"),
)

BY_K: dict[int, Ancillary] = {row.k: row for row in ROWS}
BY_NAME: dict[str, Ancillary] = {row.name: row for row in ROWS}
