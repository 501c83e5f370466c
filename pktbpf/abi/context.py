"""`struct __sk_buff` as a socket filter sees it: offsets, sizes, and what may be read and written.

Source of the rules: sk_filter_is_valid_access and bpf_convert_ctx_access in the kernel's net/core/filter.c, held
against the live 6.18 kernel. Byte-order notes: protocol and vlan_proto are in network order here, in host order in
ancillary loads and in the metadata columns.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Access(enum.Enum):
    """What a socket filter may do with a field."""

    NONE = "none"
    READ = "read"
    READ_WRITE = "read_write"
    SOCKET = "socket"  # `sk`: one 8-byte read of a pointer that may be null


@dataclass(frozen=True, slots=True)
class Field:
    """offset and size in bytes. bits: width of the skb's own field behind it. column: metadata column, if any."""

    name: str
    offset: int
    size: int
    access: Access
    bits: int = 32
    column: str | None = None


_N, _R, _RW = Access.NONE, Access.READ, Access.READ_WRITE

FIELDS: tuple[Field, ...] = (
    Field("len", 0, 4, _R),
    Field("pkt_type", 4, 4, _R, 3, "pkt_type"),
    Field("mark", 8, 4, _R, 32, "mark"),
    Field("queue_mapping", 12, 4, _R, 16, "queue_mapping"),
    Field("protocol", 16, 4, _R, 16, "protocol"),
    Field("vlan_present", 20, 4, _R, 32, "vlan_present"),
    Field("vlan_tci", 24, 4, _R, 16, "vlan_tci"),
    Field("vlan_proto", 28, 4, _R, 16, "vlan_proto"),
    Field("priority", 32, 4, _R, 32, "priority"),
    Field("ingress_ifindex", 36, 4, _R, 32, "ingress_ifindex"),
    Field("ifindex", 40, 4, _R, 32, "ifindex"),
    Field("tc_index", 44, 4, _R, 16, "tc_index"),
    Field("cb", 48, 20, _RW),
    Field("hash", 68, 4, _R, 32, "hash"),
    Field("tc_classid", 72, 4, _N),
    Field("data", 76, 4, _N),
    Field("data_end", 80, 4, _N),
    Field("napi_id", 84, 4, _R, 32, "napi_id"),
    Field("family", 88, 4, _N),
    Field("remote_ip4", 92, 4, _N),
    Field("local_ip4", 96, 4, _N),
    Field("remote_ip6", 100, 16, _N),
    Field("local_ip6", 116, 16, _N),
    Field("remote_port", 132, 4, _N),
    Field("local_port", 136, 4, _N),
    Field("data_meta", 140, 4, _N),
    Field("flow_keys", 144, 8, _N, 64),
    Field("tstamp", 152, 8, _N, 64),
    Field("wire_len", 160, 4, _N),
    Field("gso_segs", 164, 4, _R, 16, "gso_segs"),
    Field("sk", 168, 8, Access.SOCKET, 64),
    Field("gso_size", 176, 4, _R, 16, "gso_size"),
    Field("tstamp_type", 180, 1, _N, 8),
    Field("hwtstamp", 184, 8, _N, 64),
)

BY_NAME: dict[str, Field] = {field.name: field for field in FIELDS}


def field_at(offset: int) -> Field | None:
    """The field that byte `offset` of the context belongs to; None for padding and outside."""
    return next((f for f in FIELDS if f.offset <= offset < f.offset + f.size), None)


# Metadata columns: one signed 64-bit value per packet each. Order is the layout of the engines' metadata rows.
UNSET = -(1 << 63)
COLUMNS: tuple[str, ...] = (
    "protocol",  # EtherType, host order
    "pkt_type",  # 0 host, 1 broadcast, 2 multicast, 3 other host, 4 outgoing
    "ifindex",  # 0: the skb has no device
    "mark",
    "queue_mapping",
    "hash",
    "hatype",  # ARPHRD type
    "cpu",
    "vlan_present",
    "vlan_tci",
    "vlan_proto",  # host order
    "mac_offset",  # relative to the program's byte 0; UNSET: no link header set
    "network_offset",  # relative to the program's byte 0; UNSET: no network header set
    "timestamp",  # nanoseconds since 1970
    "priority",
    "ingress_ifindex",
    "tc_index",
    "napi_id",
    "gso_segs",
    "gso_size",
)
# What a column's value may be, both ends included, where that is not an unsigned number of 16 bits.
_U32, _S32, _S64 = (0, (1 << 32) - 1), (-(1 << 31), (1 << 31) - 1), (UNSET + 1, (1 << 63) - 1)
RANGES: dict[str, tuple[int, int]] = dict.fromkeys(COLUMNS, (0, 0xFFFF)) | {
    "pkt_type": (0, 7),
    **dict.fromkeys(("ifindex", "mark", "hash", "cpu", "priority", "ingress_ifindex", "napi_id"), _U32),
    **dict.fromkeys(("mac_offset", "network_offset"), _S32),
    "timestamp": _S64,
}
COLUMN: dict[str, int] = {name: number for number, name in enumerate(COLUMNS)}
