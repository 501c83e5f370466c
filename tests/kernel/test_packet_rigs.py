"""The rigs with real headers: what the kernel delivers, and the metadata that comes with it."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pktbpf import expression
from pktbpf.abi.context import COLUMN
from pktbpf.capture.batch import batch_of
from pktbpf.engine.base import Env, profile
from pktbpf.engine.skb import view
from pktbpf.errors import KernelUnavailable
from pktbpf.filter import Filter
from pktbpf.kernel.ip_rig import IpRig
from pktbpf.kernel.namespace import MAC
from pktbpf.kernel.observed import Observed
from pktbpf.kernel.packet_rig import PacketRig
from pktbpf.kernel.rigs import Rig
from pktbpf.kernel.unix_rig import UnixRig
from pktbpf.parity.packets import PacketMaker

pytestmark = pytest.mark.kernel

OTHER = bytes.fromhex("020000000099")
AD = 0xFFFFF000


def code(*insns: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("<HBBI", *insn) for insn in insns)


RET_LEN = code((0x80, 0, 0, 0), (0x16, 0, 0, 0))
RET_ALL = code((0x06, 0, 0, 0xFFFFFFFF))


def _open(make: Callable[[], Rig]) -> Iterator[Rig]:
    try:
        rig = make()
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with rig:
        yield rig


@pytest.fixture
def packet() -> Iterator[Rig]:
    yield from _open(PacketRig)


@pytest.fixture
def dgram() -> Iterator[Rig]:
    yield from _open(lambda: PacketRig(datagram=True))


@pytest.fixture
def udp() -> Iterator[Rig]:
    yield from _open(lambda: IpRig("udp"))


@pytest.fixture
def raw_ip() -> Iterator[Rig]:
    yield from _open(lambda: IpRig("raw-ip"))


def frame(kind: int, body: bytes, destination: bytes = MAC) -> bytes:
    return destination + OTHER + struct.pack("!H", kind) + body


def column(seen: Observed, name: str) -> list[int]:
    return [int(value) for value in seen.skbs.meta[:, COLUMN[name]]]


def test_frames_too_short_are_not_deliverable_and_not_dropped(packet: Rig) -> None:
    assert packet.attach_classic(RET_LEN) == 0
    seen = packet.run([bytes(13), frame(0x0800, b""), frame(0x0800, bytes(46))])
    assert seen.delivered.tolist() == [False, True, True]
    assert seen.kept.tolist() == [0, 14, 60]
    assert seen.skbs.delivered.tolist() == [False, True, True]


def test_packet_type_follows_the_destination(packet: Rig) -> None:
    targets = (MAC, b"\xff" * 6, b"\x01\x00\x5e\x00\x00\x01", OTHER)
    seen = packet.run([frame(0x0806, bytes(28), target) for target in targets])
    assert column(seen, "pkt_type") == [0, 1, 2, 3]


def test_one_tag_is_taken_out_of_the_bytes(packet: Rig) -> None:
    assert packet.attach_classic(RET_LEN) == 0
    tagged = frame(0x8100, struct.pack("!HH", 0x200A, 0x0806) + bytes(28))
    stacked = frame(0x88A8, struct.pack("!HHHH", 0x0005, 0x8100, 0x0006, 0x0800) + bytes(28))
    seen = packet.run([tagged, stacked])
    assert seen.kept.tolist() == [42, 46]
    assert column(seen, "vlan_present") == [1, 1]
    assert column(seen, "vlan_tci") == [0x200A, 5]
    assert column(seen, "vlan_proto") == [0x8100, 0x88A8]
    assert column(seen, "protocol") == [0x0806, 0x8100]


@pytest.mark.parametrize(("offset", "name"), [(20, "mark"), (24, "queue_mapping"), (32, "hash"), (28, "hatype"),
                                              (8, "ifindex"), (0, "protocol"), (36, "cpu"), (4, "pkt_type"),
                                              (44, "vlan_tci"), (48, "vlan_present"), (60, "vlan_proto")])  # fmt: skip
def test_metadata_given_is_what_the_program_reads(packet: Rig, dgram: Rig, offset: int, name: str) -> None:
    """The load is compared with the value said to be there: nothing else is accepted."""
    frames = [frame(0x0800, bytes(40)), frame(0x8100, b"\x20\x0a\x08\x06" + bytes(40)), frame(4, bytes(40), OTHER)]
    for rig in (packet, dgram):
        assert isinstance(rig, PacketRig)
        for run in (rig.run, rig.run_outgoing):
            for one in frames:
                value = column(run([one]), name)[0]
                test = code((0x20, 0, 0, AD + offset), (0x15, 0, 1, value), (6, 0, 0, 9), (6, 0, 0, 0))
                assert rig.attach_classic(test) == 0
                assert run([one]).kept.tolist() == [9], (name, value)


def test_outgoing_packets_keep_their_tags(packet: Rig, dgram: Rig) -> None:
    tagged = frame(0x8100, struct.pack("!HH", 10, 0x0806) + bytes(28))
    for rig, kept in ((packet, 46), (dgram, 28)):
        assert isinstance(rig, PacketRig)
        assert rig.attach_classic(RET_LEN) == 0
        seen = rig.run_outgoing([tagged, frame(0x0800, bytes(50))])
        assert column(seen, "pkt_type") == [4, 4]
        assert column(seen, "vlan_present") == [0, 0]
        assert int(seen.kept[0]) == kept
        assert seen.skbs.length.tolist() == seen.kept.tolist()


def test_dgram_begins_at_the_network_header(dgram: Rig) -> None:
    assert dgram.attach_classic(code((0x30, 0, 0, 0), (0x16, 0, 0, 0))) == 0
    assert dgram.run([frame(0x0800, b"\x05" + bytes(40))]).kept.tolist() == [5]


def _ipv4_udp(port: int, payload: bytes) -> bytes:
    maker = PacketMaker(1)
    from pktbpf.parity.packets import checksum

    segment = struct.pack("!HHHH", 1000, port, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 1, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x08\x08\x08\x08"
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return frame(0x0800, header + segment, maker.mac)


def test_udp_headers_are_at_negative_offsets(udp: Rig) -> None:
    packet = _ipv4_udp(5353, b"\x07" * 30)
    for offset, value in (
        (0xFFF00000, 0x45),
        (0xFFF00009, 17),
        (0xFFE00000, MAC[0]),
        (0xFFE0000C, 8),
        (8, 7),
        (3, 5353 & 255),
    ):
        test = code((0x30, 0, 0, offset), (0x15, 0, 1, value), (6, 0, 0, 12), (6, 0, 0, 0))
        assert udp.attach_classic(test) == 0
        assert udp.run([packet]).kept.tolist() == [12], hex(offset)


def test_udp_header_survives_any_trim(udp: Rig) -> None:
    assert udp.attach_classic(code((6, 0, 0, 1))) == 0
    assert udp.run([_ipv4_udp(53, b"abcdef"), _ipv4_udp(54, b"")]).kept.tolist() == [8, 8]


def test_padding_is_not_part_of_what_ip_sockets_see(udp: Rig, raw_ip: Rig) -> None:
    padded = _ipv4_udp(53, b"ab") + bytes(18)
    for rig, length in ((udp, 10), (raw_ip, 30)):
        assert rig.attach_classic(RET_LEN) == 0
        assert rig.run([padded]).kept.tolist() == [length]


def test_damaged_packets_are_not_deliverable(udp: Rig) -> None:
    good = _ipv4_udp(53, b"ab")
    wrong = good[:24] + bytes([good[24] ^ 1]) + good[25:]
    assert udp.run([good, wrong, good[:30], b"", frame(0x0806, bytes(28))]).delivered.tolist() == [True] + [False] * 4


def test_more_ports_than_sockets_kept_open(udp: Rig) -> None:
    assert udp.attach_classic(RET_LEN) == 0
    assert udp.run([_ipv4_udp(port, b"a") for port in range(2000, 2300)]).kept.tolist() == [9] * 300


def test_refusals_carry_the_errno(packet: Rig, udp: Rig) -> None:
    for rig in (packet, udp):
        assert rig.attach_classic(b"") == errno.EINVAL
        assert rig.attach_extended(0) in (errno.EINVAL, errno.EBADF)


def test_processor_is_the_one_given() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        with UnixRig() as rig:
            for processor in sorted(allowed):
                os.sched_setaffinity(0, {processor})
                test = code((0x20, 0, 0, AD + 36), (0x15, 0, 1, processor), (6, 0, 0, 1), (6, 0, 0, 0))
                assert rig.attach_classic(test) == 0
                seen = rig.run([b"ab"])
                assert seen.accepted.tolist() == [True]
                assert column(seen, "cpu") == [processor]
                assert os.sched_getaffinity(0) == {processor}
    finally:
        os.sched_setaffinity(0, allowed)


def test_nothing_is_left_behind(packet: Rig) -> None:
    """A rig that was opened and closed leaves neither descriptors nor devices nor another namespace."""
    packet.run([frame(0x0800, bytes(46))])
    before = len(list(Path("/proc/self/fd").iterdir()))
    namespace = Path("/proc/thread-self/ns/net").readlink()
    devices = sorted(path.name for path in Path("/sys/class/net").iterdir())
    for make in (PacketRig, lambda: IpRig("udp"), UnixRig):
        with make() as rig:
            rig.run([frame(0x0800, bytes(46))])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/thread-self/ns/net").readlink() == namespace
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == devices


@pytest.mark.parametrize("step", ["namespace.Tap._set_up", "bind", "ip_rig.accept_every_address"])
def test_nothing_is_left_behind_by_a_rig_that_cannot_open(
    step: str, packet: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "refused")

    before = len(list(Path("/proc/self/fd").iterdir()))
    namespace = Path("/proc/thread-self/ns/net").readlink()
    with monkeypatch.context() as patched:
        if "bind" in step:
            patched.setattr("pktbpf.kernel.packet_rig.NAME", "no-such-device")
        else:
            patched.setattr(f"pktbpf.kernel.{step}", refuse)
        with pytest.raises(KernelUnavailable):
            IpRig("udp") if "ip_rig" in step else PacketRig()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/thread-self/ns/net").readlink() == namespace


def test_a_socket_without_its_program_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is on every socket that a packet is judged by, or the run ends."""
    try:
        rig = IpRig("udp")
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with rig:
        assert rig.attach_classic(RET_ALL) == 0
        monkeypatch.setattr("pktbpf.kernel.attach.attach_classic", lambda sock, program: errno.ENOMEM)
        with pytest.raises(OSError, match="another socket of the udp rig") as caught:
            rig.run([PacketMaker(1, deliverable=True).frame() for _ in range(20)])
        assert caught.value.errno == errno.ENOMEM


LIVE_ONLY = {"ifindex", "ingress_ifindex", "queue_mapping", "cpu", "timestamp"}


@pytest.mark.parametrize("name", ["packet", "packet-dgram", "udp", "raw-ip"])
def test_offline_view_of_a_capture_equals_the_live_one(name: str) -> None:
    """Byte 0, length, headers, protocol, packet type and tag as engine.skb derives them from the frame alone."""
    from pktbpf.kernel.rigs import open_rig

    maker = PacketMaker(9, deliverable=name in ("udp", "raw-ip"))
    frames = [maker.frame() for _ in range(1500)]
    try:
        rig = open_rig(name)
    except KernelUnavailable as reason:
        pytest.skip(str(reason))
    with rig:
        live = rig.run(frames)
    live_env = Env(mac=MAC, strip_vlan=True)
    with view(batch_of(frames), profile(name), live_env, meta=True) as offline:
        rows = np.flatnonzero(live.delivered)
        assert len(rows) > 700
        assert offline.delivered[rows].all()
        assert offline.length[rows].tolist() == live.skbs.length[rows].tolist()
        for column_name, number in COLUMN.items():
            if column_name not in LIVE_ONLY:
                assert offline.meta[rows, number].tolist() == live.skbs.meta[rows, number].tolist(), column_name
        for row in rows:
            size = int(live.skbs.captured[row])
            ours = offline.data[offline.base[row] : offline.base[row] + size]
            theirs = live.skbs.data[live.skbs.base[row] : live.skbs.base[row] + size]
            assert ours.tobytes() == theirs.tobytes()


def test_expressions_compiled_for_live_sockets_see_the_tag(packet: Rig) -> None:
    """What `--strip-vlan` promises: the kernel's verdict on tagged frames is that of the replay."""
    tag, inside = struct.pack("!HH", 0x200A, 0x0806) + bytes(28), struct.pack("!HHHH", 5, 0x8100, 6, 0x0800) + bytes(28)
    frames = [frame(0x8100, tag), frame(0x0806, bytes(28)), frame(0x88A8, inside)]
    for text in ("vlan", "vlan 10", "arp", "vlan 10 and arp", "vlan and vlan 6", "ether[12:2] = 0x8100"):
        program = expression.compile(text, live=True)
        assert packet.attach_classic(program.to_bytes()) == 0
        kept = packet.run(frames).kept
        with view(batch_of(frames), profile("packet"), Env(strip_vlan=True), meta=True) as skbs:
            verdict = Filter(program).runner.run(skbs).verdict
        assert ((kept > 0) == (verdict > 0)).all(), text
