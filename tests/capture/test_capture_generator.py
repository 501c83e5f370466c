"""bench/generate.py: the same bytes for the same arguments, about the size asked for, sound packets."""

from __future__ import annotations

import io
import shutil
import subprocess

import pytest
from capture_bytes import generator, read


def _generate(**options) -> bytes:
    file = io.BytesIO()
    written = generator().write(file, **{"packets": 5_000, "size": 1_750_000, **options})
    assert written == len(file.getvalue())
    return file.getvalue()


def test_deterministic() -> None:
    assert _generate() == _generate()
    assert _generate() != _generate(seed=2)


@pytest.mark.parametrize("format", ["pcap", "pcapng"])
@pytest.mark.parametrize("nanosecond", [False, True])
def test_every_format_holds_the_same_traffic(format: str, nanosecond: bool) -> None:
    # pcapng takes 17.5 bytes more per packet; with that the shares of sizes are the same.
    size = 1_750_000 + (87_500 if format == "pcapng" else 0)
    outcome = read(_generate(format=format, nanosecond=nanosecond, size=size))
    plain = read(_generate()).packets
    assert outcome.error is None
    # What fills the packets differs with their place in the file, headers and lengths do not.
    assert [packet.data[:34] for packet in outcome.packets] == [packet.data[:34] for packet in plain]
    assert [len(packet.data) for packet in outcome.packets] == [len(packet.data) for packet in plain]
    times = [packet.time for packet in outcome.packets]
    assert times == sorted(times)
    assert any(time % 1000 for time in times) == nanosecond
    assert [time // 1000 * 1000 for time in times] == [packet.time for packet in plain]


@pytest.mark.parametrize("mean", [200, 350, 900])
def test_about_the_size_asked_for(mean: int) -> None:
    assert len(_generate(packets=20_000, size=20_000 * mean)) == pytest.approx(20_000 * mean, rel=0.05)


def test_tcpdump_finds_all_lengths_and_checksums_right(tmp_path) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    path = tmp_path / "a.pcap"
    path.write_bytes(_generate())
    done = subprocess.run(["tcpdump", "-nvvr", path], capture_output=True, text=True, timeout=60, check=True)
    assert "cksum" in done.stdout
    for word in ("incorrect", "bad ", "wrong", "[|", "truncated"):
        assert word not in done.stdout
    for word in ("ARP", "ICMP echo", "ICMP6", "IP6", "flags [+]", "example.org"):
        assert word in done.stdout
