"""The compiled way out: chosen packets of a batch to file records, one call per batch.

Each function fills `out` with whole records (header, the first bytes of the packet, for pcapng padding and trailer) and
returns the bytes used; the caller made `out` large enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pktbpf.hot import hot, store_le32


@hot
def gather_pcap(
    data: Any, start: Any, wirelen: Any, rows: Any, length: Any, seconds: Any, fraction: Any, out: Any
) -> Any:
    """pcap records of packets `rows`, the first `length` bytes of each. seconds, fraction: what the header says."""
    at = np.uint64(0)
    for n in range(len(rows)):
        row = rows[n]
        size = np.uint64(length[n])
        store_le32(out, at, np.uint64(seconds[n]))
        store_le32(out, at + np.uint64(4), np.uint64(fraction[n]))
        store_le32(out, at + np.uint64(8), size)
        store_le32(out, at + np.uint64(12), np.uint64(wirelen[row]))
        at += np.uint64(16)
        begin = np.uint64(start[row])
        for i in range(size):
            out[at + np.uint64(i)] = data[begin + np.uint64(i)]
        at += size
    return at


@hot
def gather_pcapng(data: Any, start: Any, wirelen: Any, rows: Any, length: Any, ticks: Any, card: Any, out: Any) -> Any:
    """Enhanced packet blocks of packets `rows`. ticks: uint64 time stamps in the interface's own unit. card: its id."""
    at = np.uint64(0)
    for n in range(len(rows)):
        row = rows[n]
        size = np.uint64(length[n])
        padded = (size + np.uint64(3)) & ~np.uint64(3)
        total = padded + np.uint64(32)
        store_le32(out, at, np.uint64(6))
        store_le32(out, at + np.uint64(4), total)
        store_le32(out, at + np.uint64(8), np.uint64(card[n]))
        store_le32(out, at + np.uint64(12), ticks[n] >> np.uint64(32))
        store_le32(out, at + np.uint64(16), ticks[n])
        store_le32(out, at + np.uint64(20), size)
        store_le32(out, at + np.uint64(24), np.uint64(wirelen[row]))
        at += np.uint64(28)
        begin = np.uint64(start[row])
        for i in range(size):
            out[at + np.uint64(i)] = data[begin + np.uint64(i)]
        for i in range(size, padded):
            out[at + np.uint64(i)] = np.uint8(0)
        at += padded
        store_le32(out, at, total)
        at += np.uint64(4)
    return at
