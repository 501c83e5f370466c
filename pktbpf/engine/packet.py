"""Packet loads off the fast path: negative offsets, bytes past the capture, the end of the packet.

Mirrors bpf_skb_load_helper_convert_offset and bpf_skb_load_helper_{8,16,32} in net/core/filter.c: after conversion an
offset may be negative, which reads what lies in front of byte 0.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.ancillary import SKF_LL_OFF, SKF_NET_OFF
from pktbpf.abi.context import UNSET
from pktbpf.engine.arith import U0, U8
from pktbpf.hot import Bytes, Scalar, hot

# What a load can come to.
LOADED, FAILED, UNKNOWN = 0, 1, 2


@hot
def slow_load(
    data: Bytes,
    base: Scalar,
    length: Scalar,
    captured: Scalar,
    head: Scalar,
    mac: Scalar,
    network: Scalar,
    offset: Scalar,
    size: Scalar,
) -> Scalar:
    """(value, LOADED), (0, FAILED) when the kernel fails the load, (0, UNKNOWN) when only the capture lacks the bytes.

    offset: int64, already truncated to 32 bits as the helper's argument is. mac, network: offsets, UNSET for none.
    """
    if offset < 0:
        if offset >= SKF_NET_OFF:
            offset = offset - SKF_NET_OFF + (network if network != UNSET else 0)
        elif offset >= SKF_LL_OFF and mac != UNSET:
            offset = offset - SKF_LL_OFF + mac
        else:
            return U0, FAILED
    if offset + size > length:
        return U0, FAILED
    if offset + size > captured or offset < -head:
        return U0, UNKNOWN
    value = U0
    for index in range(size):
        value = value << U8 | np.uint64(data[base + offset + index])
    return value, LOADED
