"""How long does it take to read a whole capture and filter it? Against libpcap's C loop, tcpdump, dpkt and scapy.

    python bench/end_to_end.py [--packets 2000000] [--bytes 700000000] [--rounds 5]

The file is in the page cache for everybody. pktbpf and libpcap are timed inside their process, from the first record
to the last, start-up left out; `pktbpf, command` and tcpdump are whole processes. scapy reads 20,000 packets only.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from common import FILTER, capture, compiled, interleaved, pktbpf, save, seconds

SCAPY_PACKETS = 20_000


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packets", type=int, default=2_000_000)
    parser.add_argument("--bytes", type=int, default=700_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    path = capture(arguments.packets, arguments.bytes)
    reader = str(compiled("read_filter"))
    counts: dict[str, tuple[int, int]] = {}

    def libpcap() -> float:
        done = subprocess.run([reader, str(path), FILTER], capture_output=True, text=True, check=True)
        packets, accepted, taken = done.stdout.split()
        counts["libpcap"] = int(packets), int(accepted)
        return 1e9 * float(taken) / int(packets)

    def ours() -> float:
        import pktbpf

        results = pktbpf.replay(path, FILTER, columns=False)
        counts["pktbpf"] = results.packets, results.accepted
        return 1e9 * results.elapsed / results.packets

    subjects = {
        "libpcap read + pcap_offline_filter (C)": libpcap,
        "pktbpf": ours,
        "pktbpf, command": lambda: 1e9 * seconds(pktbpf("replay", str(path), "--filter", FILTER)) / counts["pktbpf"][0],
        "tcpdump -r F -w /dev/null": lambda: (
            1e9 * seconds(["tcpdump", "-r", str(path), "-w", "/dev/null", FILTER]) / counts["pktbpf"][0]
        ),
    }
    taken = interleaved(subjects, arguments.rounds)
    assert counts["libpcap"] == counts["pktbpf"], counts
    taken["dpkt, reading only"] = [dpkt_loop(path) for _ in range(2)]
    taken["scapy, reading only"] = [scapy_loop(path) for _ in range(2)]
    facts = {"filter": FILTER, "packets": counts["pktbpf"][0], "accepted": counts["pktbpf"][1],
             "bytes": path.stat().st_size}  # fmt: skip
    save("end_to_end", facts, taken, "ns/packet", "libpcap read + pcap_offline_filter (C)")


def dpkt_loop(path: Path) -> float:
    """Reading records with dpkt, nothing dissected."""
    import dpkt

    begun, count = time.perf_counter(), 0
    with path.open("rb") as stream:
        for _ in dpkt.pcap.Reader(stream):
            count += 1
    return 1e9 * (time.perf_counter() - begun) / count


def scapy_loop(path: Path) -> float:
    """Reading and dissecting with scapy, as it always does, of a part of the capture."""
    import scapy.all  # noqa: F401  registers Ethernet
    from scapy.utils import PcapReader

    begun = time.perf_counter()
    with PcapReader(str(path)) as reader:
        for count, _ in enumerate(reader, 1):
            if count == SCAPY_PACKETS:
                break
    return 1e9 * (time.perf_counter() - begun) / count


if __name__ == "__main__":
    main()
