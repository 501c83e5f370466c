"""What do maps cost? A counter in an array map against the same filter without it, and a table of 100,000 flows.

    python bench/maps.py [--packets 2000000] [--bytes 700000000] [--rounds 5]

`replay` rows read and filter the whole capture, `loop` rows run over packets that lie in memory. The flow table adds
packets and bytes of each source, destination and pair of ports; every flow is in the table before the clock starts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import capture, interleaved, save

FLOWS = 100_000
LOOP_PACKETS = 400_000
PLAIN = """
r6 = r1
r0 = *(u16 *)skb[12]
if r0 != 0x800 goto other
r0 = *(u8 *)skb[23]
*(u32 *)(r10 -4) = r0
other: r0 = -1
exit
"""
COUNTER = """
.map counts ARRAY key_size=4 value_size=8 max_entries=256
r6 = r1
r0 = *(u16 *)skb[12]
if r0 != 0x800 goto other
r0 = *(u8 *)skb[23]
*(u32 *)(r10 -4) = r0
r1 = map[counts] ll
r2 = r10
r2 += -4
call bpf_map_lookup_elem#1
if r0 == 0 goto other
r1 = 1
lock *(u64 *)(r0 +0) += r1
other: r0 = -1
exit
"""
FLOW_TABLE = """
.map flows HASH key_size=16 value_size=16 max_entries=131072
r6 = r1
r7 = *(u32 *)(r6 +0)
*(u32 *)(r10 -4) = 0
r0 = *(u32 *)skb[26]
*(u32 *)(r10 -16) = r0
r0 = *(u32 *)skb[30]
*(u32 *)(r10 -12) = r0
r0 = *(u32 *)skb[34]
*(u32 *)(r10 -8) = r0
r1 = map[flows] ll
r2 = r10
r2 += -16
call bpf_map_lookup_elem#1
if r0 == 0 goto fresh
r1 = 1
lock *(u64 *)(r0 +0) += r1
lock *(u64 *)(r0 +8) += r7
r0 = -1
exit
fresh: r1 = 1
*(u64 *)(r10 -32) = r1
*(u64 *)(r10 -24) = r7
r1 = map[flows] ll
r2 = r10
r2 += -16
r3 = r10
r3 += -32
r4 = 0
call bpf_map_update_elem#2
r0 = -1
exit
"""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--bytes", type=int, default=700_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    path = capture(arguments.packets, arguments.bytes)
    packets, flows = from_capture(path), of_flows()
    facts: dict[str, Any] = {"packets": arguments.packets, "loop_packets": LOOP_PACKETS, "flows": FLOWS}
    subjects = {
        "replay, no map": replayed(path, PLAIN),
        "replay, array counter": replayed(path, COUNTER),
        "loop, no map": looped(packets, PLAIN),
        "loop, array counter": looped(packets, COUNTER),
        f"loop, hash table of {FLOWS:,} flows": looped(flows, FLOW_TABLE, FLOWS),
    }
    taken = interleaved(subjects, arguments.rounds)
    save("maps", facts, taken, "ns/packet", "replay, no map")
    for what in ("replay", "loop"):
        ratio = min(taken[f"{what}, array counter"]) / min(taken[f"{what}, no map"])
        print(f"maps         {what}: the array counter takes {ratio:.2f} x the filter without it (bar 2.00)")
    rate = 1e3 / min(taken[f"loop, hash table of {FLOWS:,} flows"])
    print(f"maps         flow table: {rate:.2f} M packets/s (bar 3.00)")


def program(text: str) -> Any:
    """A program from its text, checked."""
    import pktbpf

    return pktbpf.load(text, form="extended")


def replayed(path: Path, text: str) -> Callable[[], float]:
    """One whole replay."""

    def run() -> float:
        import pktbpf

        results = pktbpf.replay(path, program(text), columns=False)
        counted = sum(results.maps["counts"].values()) if results.maps else results.accepted
        assert 0 < counted <= results.packets
        return 1e9 * results.elapsed / results.packets

    return run


def looped(packets: list[bytes], text: str, flows: int = 0) -> Callable[[], float]:
    """The runner over one batch in memory. flows: how many entries the only map must have afterwards."""
    import pktbpf
    from pktbpf.capture.batch import batch_of
    from pktbpf.engine.base import Env, profile
    from pktbpf.engine.skb import view

    whole = batch_of(packets)
    chosen = pktbpf.Filter(program(text))

    def run() -> float:
        with view(whole, profile("packet"), Env(), meta=False) as skbs:
            if not flows or not len(chosen.maps["flows"]):
                chosen.runner.run(skbs)
            begun = time.perf_counter()
            chosen.runner.run(skbs)
            taken = time.perf_counter() - begun
        assert not flows or len(chosen.maps["flows"]) == flows
        return 1e9 * taken / len(packets)

    return run


def from_capture(path: Path) -> list[bytes]:
    """The first packets of a capture."""
    import pktbpf

    packets: list[bytes] = []
    with pktbpf.open_capture(path) as source:
        for batch in source:
            packets += [batch.packet(row) for row in range(min(len(batch), LOOP_PACKETS - len(packets)))]
            if len(packets) == LOOP_PACKETS:
                break
    return packets


def of_flows() -> list[bytes]:
    """UDP packets of 60 bytes, all flows in an order that no cache can guess."""
    import random

    chance = random.Random(1)
    order = [number % FLOWS for number in range(LOOP_PACKETS)]
    chance.shuffle(order)
    head = bytes.fromhex("020000000001020000000002080045000020000040004011") + bytes(2)
    return [
        head + (0x0A000000 + flow).to_bytes(4, "big") + b"\xc0\x00\x02\x01"
        + (1024 + flow % 60000).to_bytes(2, "big") + bytes.fromhex("0035001c0000") + bytes(18)
        for flow in order
    ]  # fmt: skip


if __name__ == "__main__":
    main()
