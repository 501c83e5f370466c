"""The writers: byte for byte what tcpdump writes, read back as written, valid at every moment."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from capture_bytes import (
    EVERYTHING,
    KUZNETZOV,
    MICRO,
    NANO,
    Packet,
    enhanced,
    generator,
    interface,
    obsolete,
    option,
    pcap,
    pcap_header,
    random_packets,
    read,
    section,
    simple,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pktbpf.capture.batch import Batch, Interface, batch_of
from pktbpf.capture.open import open_capture
from pktbpf.capture.writer import format_of, open_writer, resolution_code
from pktbpf.errors import CaptureError, LinkTypeError, UsageError

needs_tcpdump = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")


def _copy(source, format: str = "pcap", kept: int = EVERYTHING, **options) -> bytes:
    """The capture written again; also when it is damaged."""
    out = io.BytesIO()
    with open_capture(source, **options) as capture, capture.writer(out, format=format) as writer:
        try:
            for batch in capture:
                writer.write(batch, np.arange(len(batch)), np.full(len(batch), kept))
        except CaptureError:
            assert capture.packets == writer.packets
    return out.getvalue()


def _tcpdump(data: bytes, tmp_path: Path, *options: str) -> bytes:
    path = tmp_path / "in.cap"
    path.write_bytes(data)
    command = ["tcpdump", "-r", path, "-w", "-", *options]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout


@needs_tcpdump
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [MICRO, NANO, KUZNETZOV])
@pytest.mark.parametrize("version", [(2, 4), (2, 3), (2, 2), (543, 0)])
@pytest.mark.parametrize("snaplen", [65_535, 50, 0])
def test_pcap_same_bytes_as_tcpdump(
    order: str, magic: int, version: tuple[int, int], snaplen: int, tmp_path: Path
) -> None:
    data = pcap(random_packets(1), order, magic, version, snaplen)
    options = ["--time-stamp-precision=nano"] if magic == NANO else []
    assert _copy(data) == _tcpdump(data, tmp_path, *options)


@needs_tcpdump
@pytest.mark.parametrize("linktype", [0, 1, 9, 12, 100, 101, 103, 105, 106, 113, 127, 228, 239, 276, 0x14000001])
def test_link_type_field_same_as_tcpdump(linktype: int, tmp_path: Path) -> None:
    data = pcap(random_packets(2), linktype=linktype)
    assert _copy(data) == _tcpdump(data, tmp_path)


@needs_tcpdump
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("code", [6, 9, 3, 12, 0x80 + 20, 0x80 + 40])
def test_pcapng_to_pcap_same_bytes_as_tcpdump(order: str, code: int, tmp_path: Path) -> None:
    source = random.Random(code)
    units = 2 ** (code & 0x7F) if code & 0x80 else 10**code
    # 2^34 ticks: libpcap's own arithmetic on fractions of binary clocks overflows where a fraction times 10^9 does.
    ticks = [source.randrange(min(units * 1_000_000, 1 << 34)) for _ in range(30)]
    note = option(1, b"note", order) + option(0, b"", order)
    blocks = [enhanced(source.randbytes(n), tick, order, 0, n + 3, note) for n, tick in enumerate(ticks)]
    data = section(order) + interface(order, tsresol=code, tsoffset=1_600_000_000) + b"".join(blocks)
    data += simple(b"simple", order) + obsolete(b"obsolete", 99, order)
    nano = ["--time-stamp-precision=nano"] if units > 1_000_000 else []
    assert _copy(data) == _tcpdump(data, tmp_path, *nano)


@needs_tcpdump
def test_a_damaged_capture_is_copied_up_to_the_damage_as_tcpdump_copies_it(tmp_path: Path) -> None:
    data = pcap(random_packets(3))
    for size in range(24, len(data), 97):
        assert _copy(data[:size]) == _tcpdump(data[:size], tmp_path)


@needs_tcpdump
def test_a_big_capture_in_many_batches_same_bytes_as_tcpdump(tmp_path: Path) -> None:
    file = io.BytesIO()
    generator().write(file, packets=20_000, size=7_000_000)
    assert _copy(file.getvalue(), window=1 << 16) == _tcpdump(file.getvalue(), tmp_path)


def test_rows_and_kept_choose_packets_and_bytes() -> None:
    packets = [Packet(bytes([n]) * 50, 90, n * 1000) for n in range(10)]
    for format in ("pcap", "pcapng"):
        out = io.BytesIO()
        with open_capture(pcap(packets)) as capture, capture.writer(out, format=format) as writer:
            for batch in capture:
                writer.write(batch, np.array([1, 4, 9]), np.array([0, 20, 0xFFFFFFFF]))
            assert writer.packets == 3
        cut = [Packet(packets[n].data[:kept], 90, n * 1000) for n, kept in ((1, 0), (4, 20), (9, 50))]
        assert read(out.getvalue()).packets == cut


packets_strategy = st.lists(
    st.builds(
        lambda data, more, time: Packet(data, len(data) + more, time),
        st.binary(max_size=80),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF * 1_000_000_000),
    ),
    max_size=12,
)


@given(packets=packets_strategy, nanosecond=st.booleans(), format=st.sampled_from(["pcap", "pcapng"]))
@settings(max_examples=150, deadline=None)
def test_round_trip(packets: list[Packet], nanosecond: bool, format: str) -> None:
    unit = 1 if nanosecond else 1000
    packets = [Packet(one.data, one.wirelen, one.time // unit * unit) for one in packets]
    batch = batch_of(
        [one.data for one in packets], linktype=101, wirelens=[one.wirelen for one in packets],
        timestamps=[one.time for one in packets],
    )  # fmt: skip
    resolution = 1_000_000_000 if nanosecond else 1_000_000
    batch.interfaces = (Interface(12, 0, resolution, "eth0"),)
    out = io.BytesIO()
    with open_writer(out, format=format, interfaces=batch.interfaces, nanosecond=nanosecond) as writer:
        writer.write(batch, np.arange(len(batch)), batch.caplen)
        assert writer.outside == 0
    assert read(out.getvalue()).packets == packets
    with open_capture(out.getvalue(), linktype=12) as capture:
        assert capture.nanosecond == nanosecond


@given(ticks=st.integers(0, 1 << 33), exponent=st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_binary_clocks_come_back_to_the_same_nanosecond(ticks: int, exponent: int) -> None:
    data = section() + interface(tsresol=0x80 + exponent) + enhanced(b"x", ticks)
    first = read(data).packets
    assert read(_copy(data, "pcapng")).packets == first


def test_pcapng_copy_keeps_interfaces_resolutions_and_times() -> None:
    data = b"".join(
        section(order)
        + interface(order, 1, 100, name="eth0")
        + interface(order, 101, 0, tsresol=9, name="tun0")
        + interface(order, 1, 100, name="eth0")
        + enhanced(b"a" * 9, 1_700_000_000_123_456, order, 0)
        + enhanced(b"b" * 10, 1_700_000_000_123_456_789, order, 1, 77)
        + enhanced(b"c" * 11, 5, order, 2)
        for order in "<>"
    )
    copy = _copy(data, "pcapng")
    with open_capture(copy) as capture:
        assert sum(len(batch) for batch in capture) == 6
        assert [(one.linktype, one.resolution, one.name, one.snaplen) for one in capture.interfaces] == [
            (1, 10**6, "eth0", 100),
            (12, 10**9, "tun0", 262_144),
            (1, 10**6, "eth0", 100),
            *[(1, 10**6, "eth0", 100), (12, 10**9, "tun0", 262_144), (1, 10**6, "eth0", 100)],
        ]
    assert read(copy).packets == read(data).packets
    assert _copy(copy, "pcapng") == copy


def test_several_inputs_share_equal_interfaces() -> None:
    out = io.BytesIO()
    writer = open_writer(out, format="pcapng")
    for number in range(3):
        with open_capture(pcap([Packet(b"x", 1, number * 1000)], linktype=113 if number == 2 else 1)) as capture:
            for batch in capture:
                writer.write(batch, np.arange(1), np.array([9]))
    writer.close()
    assert [(one.time, one.interface) for one in read(out.getvalue()).packets] == [(0, 0), (1000, 0), (2000, 1)]


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_pcapng_output(tmp_path: Path) -> None:
    (tmp_path / "a.pcapng").write_bytes(_copy(pcap(random_packets(4)), "pcapng"))
    done = subprocess.run(["tshark", "-r", tmp_path / "a.pcapng"], capture_output=True, timeout=60, check=True)
    assert done.stdout.count(b"\n") == 20


def test_python_pcapng_reads_pcapng_output() -> None:
    blocks = pytest.importorskip("pcapng.blocks")
    packets = random_packets(5)
    scanner = pytest.importorskip("pcapng").FileScanner(io.BytesIO(_copy(pcap(packets), "pcapng")))
    found = [one for one in scanner if isinstance(one, blocks.EnhancedPacket)]
    assert [(bytes(one.packet_data), one.packet_len) for one in found] == [(one.data, one.wirelen) for one in packets]


def test_a_second_link_type_in_pcap_is_refused_and_the_file_stays_valid(tmp_path: Path) -> None:
    data = section() + interface() + interface(linktype=101) + enhanced(b"eth", 1) + enhanced(b"raw", 2, card=1)
    path = tmp_path / "out.pcap"
    with open_capture(data) as capture, capture.writer(path) as writer:
        batch = capture.read()
        assert batch is not None
        writer.write(batch, np.array([0]), np.array([9]))
        with pytest.raises(UsageError, match=r"EN10MB and RAW come together; write pcapng instead"):
            writer.write(batch, np.array([0, 1]), np.array([9, 9]))
    assert read(path).packets == [Packet(b"eth", 3, 1000)]


def test_an_empty_output_is_a_valid_capture() -> None:
    for format in ("pcap", "pcapng"):
        out = io.BytesIO()
        open_writer(out, format=format, linktype=113).close()
        with open_capture(out.getvalue()) as capture:
            assert (capture.format, capture.linktype) == (format, 113)
            assert capture.read() is None


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst", ".lz4"])
@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
def test_paths_and_compression_by_suffix(name: str, suffix: str, tmp_path: Path) -> None:
    packets = random_packets(6)
    path = tmp_path / (name + suffix)
    with open_capture(pcap(packets)) as capture, capture.writer(path) as writer:
        for batch in capture:
            writer.write(batch, np.arange(len(batch)), batch.caplen)
        writer.close()
    head = path.read_bytes()[:4]
    assert (head in (b"\xd4\xc3\xb2\xa1", b"\n\r\r\n")) == (suffix == "")
    with open_capture(path) as capture:
        assert capture.format == format_of(path) == name.partition(".")[2]
    assert read(path).packets == packets


def test_standard_output() -> None:
    code = (
        "import numpy as np; from pktbpf import open_capture\n"
        "with open_capture('-') as c, c.writer('-') as w:\n"
        "    for b in c: w.write(b, np.arange(len(b)), b.caplen)\n"
    )
    data = pcap(random_packets(7))
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=120, check=True)
    assert done.stdout == data


def test_times_that_a_format_cannot_hold_are_counted() -> None:
    early = section() + interface(tsoffset=-100) + enhanced(b"x", 5)
    for format, time in (("pcap", ((1 << 32) - 100) * 10**9 + 5000), ("pcapng", 0)):
        out = io.BytesIO()
        with open_capture(early) as capture, capture.writer(out, format=format) as writer:
            for batch in capture:
                writer.write(batch, np.arange(1), np.array([1]))
            assert writer.outside == 1
        assert [one.time for one in read(out.getvalue()).packets] == [time]


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a link type"):
        open_writer(io.BytesIO())
    with pytest.raises(UsageError, match="unknown capture format 'erf'"):
        open_writer(io.BytesIO(), format="erf", linktype=1)
    with pytest.raises(CaptureError, match="No such file"):
        open_writer(tmp_path / "no" / "directory.pcap", linktype=1)
    with pytest.raises(CaptureError, match="No such file"):
        open_writer(tmp_path / "no" / "directory.pcap.gz", linktype=1)
    with pytest.raises(CaptureError, match="Is a directory"):
        open_writer(tmp_path, linktype=1)
    with pytest.raises(LinkTypeError):
        open_writer(tmp_path / "a.pcapng", linktype=1 << 20)
    assert not (tmp_path / "a.pcapng").exists()
    with open_writer(io.BytesIO(), linktype=1) as writer, pytest.raises(ValueError, match="2 rows but 1 kept"):
        writer.write(batch_of([b"a", b"b"]), np.arange(2), np.arange(1))


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(random_packets(8)))
    (tmp_path / "link.pcap").symlink_to(path)
    with open_capture(path) as capture:
        for target in (path, tmp_path / "link.pcap"):
            with pytest.raises(UsageError, match="cannot be read and overwritten"):
                capture.writer(target)
        assert sum(len(batch) for batch in capture) == 20


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_one_error() -> None:
    with pytest.raises(CaptureError, match="/dev/full: cannot write: No space left"):
        open_writer("/dev/full", linktype=1)


def test_a_closed_pipe_is_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as file, pytest.raises(BrokenPipeError):
        open_writer(file, linktype=1)


@pytest.mark.parametrize(
    ("resolution", "code"),
    [(1, 0), (1000, 3), (10**6, 6), (10**9, 9), (10**12, 9), (1024, 0x8A), (1 << 29, 0x9D), (1 << 30, 9), (12345, 9)],
)
def test_resolution_codes(resolution: int, code: int) -> None:
    assert resolution_code(resolution) == code


def test_a_batch_made_by_hand_can_be_written() -> None:
    batch: Batch = batch_of([b"abc", b"", b"defg"], linktype=1, wirelens=[3, 60, 5])
    out = io.BytesIO()
    with open_writer(out, linktype=1) as writer:
        writer.write(batch, np.array([2, 0, 1]), batch.caplen[[2, 0, 1]])
    assert out.getvalue()[:24] == pcap_header(snaplen=262_144)
    assert [(one.data, one.wirelen) for one in read(out.getvalue()).packets] == [(b"defg", 5), (b"abc", 3), (b"", 60)]


def test_a_header_that_cannot_be_written_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    def open_full(*_: object) -> tuple[Full, bool]:
        opened.append(Full())
        return opened[-1], True

    monkeypatch.setattr("pktbpf.capture.writer._open_target", open_full)
    with pytest.raises(CaptureError, match="No space left"):
        open_writer(tmp_path / "out.pcap", linktype=1)
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
@pytest.mark.parametrize("room", [50, 1000, 2000, 3001])
def test_a_full_disk_leaves_whole_packets(name: str, room: int, tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk: whatever fits, the file ends with a whole packet."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "import numpy as np, pktbpf\n"
        "from pktbpf.capture.batch import batch_of\n"
        "from pktbpf.capture.writer import open_writer\n"
        "batch = batch_of([bytes([n]) * 100 for n in range(50)])\n"
        "writer = open_writer(sys.argv[1], interfaces=batch.interfaces)\n"
        "rows = np.arange(50)\n"
        "try:\n"
        "    writer.write(batch, rows, np.full(50, 100))\n"
        "except pktbpf.CaptureError as error:\n"
        "    print(error)\n"
        "writer.close()\n"
    )
    target = tmp_path / name
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, target, str(room)],
        capture_output=True, text=True, timeout=60, check=True, env=environment,
    )  # fmt: skip
    assert done.stdout == f"{target}: cannot write: File too large\n"
    with open_capture(target) as capture:
        packets = [packet for batch in capture for packet in batch]
    head, record = (24, 116) if name.endswith(".pcap") else (28 + 20, 132)
    assert packets == [bytes([n]) * 100 for n in range((room - head) // record)]
    assert target.stat().st_size == head + record * len(packets)
