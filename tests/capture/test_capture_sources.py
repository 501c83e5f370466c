"""Where captures come from: paths, file objects, pipes, standard input, compressed data; and constant memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import itertools
import lzma
import os
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from capture_bytes import (
    Packet,
    enhanced,
    generator,
    interface,
    mutate,
    pcap,
    pcap_header,
    pcap_record,
    random_packets,
    read,
    section,
)

from pktbpf.capture.compression import PIECE, kind_of
from pktbpf.capture.open import open_capture
from pktbpf.errors import CaptureError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKETS = random_packets(1, count=3_000, longest=200)
DATA = pcap(PACKETS)
SKIPPABLE_ZSTD = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
    "lz4": lz4.frame.compress,
}


class OneByteAtATime:
    """The least a file object can be, and the slowest."""

    def __init__(self, data: bytes):
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 1))


def test_every_kind_of_source_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(DATA)
    sources = [str(path), path, DATA, bytearray(DATA), memoryview(DATA), io.BytesIO(DATA), OneByteAtATime(DATA)]
    for source in sources:
        assert read(source).packets == PACKETS, type(source)
    with path.open("rb") as buffered, path.open("rb", buffering=0) as raw:
        assert read(buffered).packets == PACKETS
        assert read(raw).packets == PACKETS
        assert not buffered.closed


@pytest.mark.parametrize("window", [0, 4096, 5000, 1 << 16, 1 << 22])
def test_any_window(window: int) -> None:
    assert read(DATA, window=window).packets == PACKETS


def test_packets_larger_than_the_window() -> None:
    source = random.Random(2)
    packets = [Packet(source.randbytes(size), size) for size in (10, 262_144, 3, 100_000, 0, 262_143, 60)]
    assert read(pcap(packets, snaplen=0), window=4096).packets == packets
    blocks = b"".join(enhanced(packet.data, 0) for packet in packets)
    assert read(section() + interface() + blocks, window=4096).packets == packets


def test_the_buffer_shrinks_back_after_a_large_packet() -> None:
    packets = [Packet(bytes(262_144), 262_144), *PACKETS]
    with open_capture(pcap(packets, snaplen=0), window=4096) as capture:
        sizes = [len(batch.data) for batch in capture]
    assert max(sizes) >= 262_144
    assert sizes[-1] == 4096


def test_batches_come_from_a_pipe_before_it_ends() -> None:
    reading, writing = os.pipe()
    records = [pcap_record(packet) for packet in PACKETS[:3]]
    with os.fdopen(reading, "rb") as pipe:
        os.write(writing, pcap_header() + records[0])
        with open_capture(pipe) as capture:
            first = capture.read()
            assert first is not None
            assert first.packet(0) == PACKETS[0].data
            os.write(writing, records[1] + records[2])
            os.close(writing)
            assert sum(len(batch) for batch in capture) == 2
            assert capture.size is None


def test_standard_input() -> None:
    code = "from pktbpf import open_capture; print(sum(len(b) for b in open_capture('-')))"
    done = subprocess.run([sys.executable, "-c", code], input=DATA, capture_output=True, timeout=120, check=True)
    assert done.stdout == b"3000\n"


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(gzip.compress(DATA),))
    writer.start()
    assert read(path).packets == PACKETS
    writer.join()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "No such file"), (".", "Is a directory"), ("bad\0name", "not a file name"), ("empty", "is empty")],
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(CaptureError, match=reason) as caught:
        open_capture(os.fspath(tmp_path) + "/" + name)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize("source", [None, 5, io.StringIO("text"), object()])
def test_what_is_no_source(source: object) -> None:
    with pytest.raises(CaptureError):
        open_capture(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed(kind: str, tmp_path: Path) -> None:
    compress = COMPRESSORS[kind]
    packed = compress(DATA)
    assert kind_of(packed[:6]) == kind
    assert read(packed).packets == PACKETS
    path = tmp_path / "any.name"
    path.write_bytes(packed)
    with open_capture(path) as capture:
        assert sum(len(batch) for batch in capture) == len(PACKETS)
        assert capture.position == capture.size == len(packed)


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_several_frames_in_a_row(kind: str) -> None:
    compress = COMPRESSORS[kind]
    cuts = [0, 10, 5_000, 5_001, 100_000, len(DATA)]
    frames = [compress(DATA[begin:end]) for begin, end in itertools.pairwise(cuts)]
    assert read(b"".join(frames)).packets == PACKETS
    assert read(OneByteAtATime(b"".join(frames))).packets == PACKETS


def test_a_skippable_zstd_frame_first() -> None:
    assert read(SKIPPABLE_ZSTD + zstd.compress(DATA)).packets == PACKETS


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_truncated_compressed_data_gives_all_whole_packets_first(kind: str) -> None:
    noise = random.Random(3)
    packets = [Packet(noise.randbytes(900), 900) for _ in range(2_000)]
    data = pcap(packets)
    packed = COMPRESSORS[kind](data)
    for share in (0.5, 0.99):
        outcome = read(packed[: int(len(packed) * share)])
        assert outcome.packets == packets[: len(outcome.packets)]
        assert outcome.error is not None
        assert outcome.error.startswith(f"{kind} data: ")
        # Random data does not compress: what can be decoded is about what was kept, less a block of bzip2 (900 kB).
        assert len(outcome.packets) > len(packets) * share - (1_000 if kind in ("bz2", "zst", "lz4", "xz") else 40)


def test_a_damaged_gzip_file_gives_all_that_zlib_can_decode() -> None:
    source = random.Random(6)
    packed = gzip.compress(DATA)
    for _ in range(6):
        damaged = bytearray(packed)
        damaged[source.randrange(100, len(packed))] ^= 0x10
        decoder = zlib.decompressobj(31)
        plain = bytearray()
        with contextlib.suppress(zlib.error):
            for byte in damaged:
                plain += decoder.decompress(bytes([byte]))
        expected = read(bytes(plain)).packets
        assert read(bytes(damaged)).packets == expected
        # What can be read only once loses at most one step of decoding.
        assert len(read(io.BytesIO(damaged)).packets) >= len(expected) - PIECE // 16


def test_a_wrong_checksum_comes_after_all_packets() -> None:
    packed = bytearray(gzip.compress(DATA))
    packed[-8] ^= 1
    outcome = read(bytes(packed))
    assert outcome.packets == PACKETS
    assert "CRC" in (outcome.error or "")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_damaged_compressed_data_never_escapes(kind: str) -> None:
    source = random.Random(4)
    packed = COMPRESSORS[kind](pcap(PACKETS[:50]))
    failures = 0
    for _ in range(100):
        failures += read(mutate(packed, source)).error is not None
    assert failures > 50


_PEAK = r"""
import re, sys
from pathlib import Path
from pktbpf import open_capture
for path in sys.argv[1:]:
    with open_capture(path) as capture:
        count = sum(len(batch) for batch in capture)
    print(count, re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
@pytest.mark.parametrize("format", ["pcap", "pcapng"])
def test_memory_does_not_grow_with_the_capture(tmp_path: Path, format: str) -> None:
    paths = [tmp_path / "small.cap", tmp_path / "big.cap"]
    for path, packets in zip(paths, (10_000, 200_000), strict=True):
        with path.open("wb") as file:
            generator().write(file, packets=packets, size=packets * 300, format=format)
    done = subprocess.run([sys.executable, "-c", _PEAK, *paths], capture_output=True, timeout=120, check=True)
    (small, before), (big, after) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert (small, big) == (10_000, 200_000)
    assert after < before + 2_000  # kB
