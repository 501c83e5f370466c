"""One packet as the reference engine sees it: the kernel's load rules in plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from pktbpf.abi import context
from pktbpf.abi.ancillary import SKF_LL_OFF, SKF_NET_OFF
from pktbpf.abi.context import COLUMN, UNSET
from pktbpf.engine.base import Fault, Skbs


class LoadFailed(Exception):
    """A packet load that the kernel fails: the frame ends with 0."""


class Faulted(Exception):
    """A run that cannot go on; carries the fault."""

    def __init__(self, fault: Fault):
        self.fault = fault
        super().__init__(fault.name)


@dataclass(frozen=True, slots=True)
class Packet:
    """buffer: everything readable. base: index of byte 0. length: skb->len. captured: bytes there from byte 0 on."""

    buffer: bytes
    base: int
    length: int
    captured: int
    meta: tuple[int, ...]

    @classmethod
    def of(cls, skbs: Skbs, number: int) -> Packet:
        """Packet `number` of a view."""
        head, base = int(skbs.head[number]), int(skbs.base[number])
        captured = max(int(skbs.captured[number]), 0)
        if len(skbs.meta):
            meta = tuple(int(v) for v in skbs.meta[number])
        else:
            columns = [0] * len(context.COLUMNS)
            columns[COLUMN["mac_offset"]] = skbs.mac_offset
            columns[COLUMN["network_offset"]] = skbs.network_offset
            meta = tuple(columns)
        raw = skbs.data[base - head : base + captured].tobytes()
        return cls(raw, head, int(skbs.length[number]), captured, meta)

    def column(self, name: str) -> int:
        """A metadata value by column name."""
        return self.meta[COLUMN[name]]

    def load(self, offset: int, size: int) -> int:
        """Big-endian value at a 32-bit offset (bpf_skb_load_helper_*). Raises LoadFailed or Faulted."""
        offset &= 0xFFFFFFFF
        if offset & 0x80000000:
            offset = self._convert(offset - (1 << 32))
        if offset + size > self.length:
            raise LoadFailed
        if offset + size > self.captured or offset < -self.base:
            raise Faulted(Fault.INDETERMINATE)
        at = self.base + offset
        return int.from_bytes(self.buffer[at : at + size], "big")

    def _convert(self, offset: int) -> int:
        if offset >= SKF_NET_OFF:
            network = self.column("network_offset")
            return offset - SKF_NET_OFF + (0 if network == UNSET else network)
        mac = self.column("mac_offset")
        if offset >= SKF_LL_OFF and mac != UNSET:
            return offset - SKF_LL_OFF + mac
        raise LoadFailed

    def context_load(self, offset: int, size: int, cb: bytearray) -> int:
        """A read of `struct __sk_buff`. Raises Faulted for what a socket filter may not read."""
        if context.BY_NAME["cb"].offset <= offset and offset + size <= 68:
            return int.from_bytes(cb[offset - 48 : offset - 48 + size], "little")
        field = context.field_at(offset)
        if field is not None and field.name == "sk" and (offset, size) == (168, 8):
            return 0
        readable = field is not None and (field.column or field.name == "len")
        if field is None or not readable or offset % size or size > 4:
            raise Faulted(Fault.CONTEXT)
        value = self._field(field)
        own = 4 if field.bits == 32 else 2 if field.bits == 16 else 1
        if size < own:
            return value >> 8 * (offset - field.offset) & (1 << 8 * size) - 1
        return value

    def _field(self, field: context.Field) -> int:
        if field.column is None:
            return self.length & 0xFFFFFFFF
        value = self.column(field.column) & 0xFFFFFFFF
        if field.bits == 16:
            value &= 0xFFFF
        if field.name in ("protocol", "vlan_proto"):
            return value >> 8 | (value & 0xFF) << 8
        return 0 if field.name == "napi_id" and value < 257 else value

    def internal(self, name: str, a: int, x: int) -> int:
        """The internal helpers of translated classic programs. Raises Faulted where the capture was cut short."""
        import numpy as np

        from pktbpf.engine.basic_helpers import nlattr
        from pktbpf.engine.dissect import payload_offset

        data = np.frombuffer(self.buffer or b"\0", dtype=np.uint8)
        if name == "skb_get_pay_offset":
            row = np.array(self.meta, dtype=np.int64)
            network = np.int64(self.column("network_offset"))
            value, fault = payload_offset(data, self.base, self.length, self.captured, network, row)
        else:
            value, fault = nlattr(data, self.base, self.length, self.captured, a, x, name == "skb_get_nlattr_nest")
        if fault:
            raise Faulted(Fault(fault))
        return int(value)
