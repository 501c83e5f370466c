"""Where byte 0 is for each attach profile, what the metadata says, and that a view leaves the buffer as it was."""

from __future__ import annotations

import struct

import pytest

from pktbpf.abi.context import COLUMN, UNSET
from pktbpf.capture.batch import Batch, batch_of
from pktbpf.engine.base import PROFILES, Env, Skbs
from pktbpf.engine.skb import view
from pktbpf.errors import UsageError

HOST, PEER = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
UDP = struct.pack(">HHHH", 5000, 53, 12, 0) + b"data"
IP4 = struct.pack(">BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0) + bytes([10, 0, 0, 1, 10, 0, 0, 2])
IP6 = struct.pack(">IHBB", 0x60000000, 20, 0, 64) + bytes(32)
HOP = bytes([17, 0]) + bytes(6)
FRAME = HOST + PEER + b"\x08\x00" + IP4 + UDP
FRAME6 = HOST + PEER + b"\x86\xdd" + IP6 + HOP + UDP
TAGGED = HOST + PEER + b"\x81\x00\x20\x0a" + FRAME[12:]


def seen(frame: bytes, profile: str, env: Env | None = None, **batch: object) -> tuple[Skbs, bytes, dict[str, int]]:
    """(view columns, the program's bytes, metadata) of one frame."""
    made: Batch = batch_of([frame], **batch)  # type: ignore[arg-type]
    with view(made, PROFILES[profile], env or Env(), meta=True) as skbs:
        at = int(skbs.base[0])
        body = skbs.data[at : at + int(skbs.captured[0])].tobytes()
        meta = {name: int(skbs.meta[0, number]) for name, number in COLUMN.items()}
    assert made.packet(0) == frame, "the view must leave the reader's buffer as it was"
    return skbs, body, meta


@pytest.mark.parametrize(
    ("profile", "frame", "body", "mac", "network"),
    [
        ("packet", FRAME, FRAME, 0, 14),
        ("packet-dgram", FRAME, FRAME[14:], -14, 0),
        ("raw-ip", FRAME, FRAME[14:], -14, 0),
        ("udp", FRAME, UDP, -34, -20),
        ("udp", FRAME6, UDP, -62, -48),
        ("unix", FRAME, FRAME, UNSET, 0),
    ],
)
def test_byte_zero(profile: str, frame: bytes, body: bytes, mac: int, network: int) -> None:
    skbs, bytes_seen, meta = seen(frame, profile)
    assert skbs.delivered[0]
    assert bytes_seen == body
    assert int(skbs.length[0]) == len(body)
    assert (meta["mac_offset"], meta["network_offset"]) == (mac, network)
    assert int(skbs.head[0]) == len(frame) - len(body)


def test_link_padding_is_trimmed_above_the_link() -> None:
    padded = FRAME + bytes(30)
    assert int(seen(padded, "packet")[0].length[0]) == len(padded)
    assert int(seen(padded, "packet-dgram")[0].length[0]) == len(padded) - 14
    assert int(seen(padded, "raw-ip")[0].length[0]) == 32
    assert int(seen(padded, "udp")[0].length[0]) == 12


FRAGMENT = FRAME[:20] + b"\x20\x00" + FRAME[22:]
TCP = FRAME[:23] + b"\x06" + FRAME[24:]


@pytest.mark.parametrize(
    ("profile", "frame"),
    [("udp", FRAGMENT), ("udp", TCP), ("udp", HOST * 3), ("raw-ip", FRAGMENT), ("raw-ip", FRAME6), ("raw-ip", b"")],
)
def test_what_never_reaches_such_a_socket(profile: str, frame: bytes) -> None:
    assert not seen(frame, profile)[0].delivered[0]


@pytest.mark.parametrize(
    ("destination", "source", "mac", "kind"),
    [
        (HOST, PEER, None, 0), (b"\xff" * 6, PEER, None, 1), (bytes.fromhex("01005e000001"), PEER, None, 2),
        (HOST, PEER, HOST, 0), (PEER, HOST, HOST, 4), (PEER, PEER, HOST, 3), (b"\xff" * 6, HOST, HOST, 4),
    ],
)  # fmt: skip
def test_packet_type(destination: bytes, source: bytes, mac: bytes | None, kind: int) -> None:
    assert seen(destination + source + FRAME[12:], "packet", Env(mac=mac))[2]["pkt_type"] == kind


@pytest.mark.parametrize(
    ("tail", "protocol"),
    [(b"\x08\x06", 0x0806), (b"\x00\x26\x42\x42\x03", 4), (b"\x00\x26\xff\xff\x00", 1), (b"\x05\xff\x00\x00", 4)],
)
def test_protocol(tail: bytes, protocol: int) -> None:
    assert seen(HOST + PEER + tail, "packet")[2]["protocol"] == protocol


def test_a_tag_stays_in_the_bytes_or_moves_into_metadata() -> None:
    _, body, meta = seen(TAGGED, "packet")
    assert (body, meta["protocol"], meta["vlan_present"]) == (TAGGED, 0x8100, 0)
    skbs, body, meta = seen(TAGGED, "packet", Env(strip_vlan=True))
    assert body == FRAME
    assert int(skbs.length[0]) == len(FRAME)
    assert (meta["protocol"], meta["vlan_present"], meta["vlan_tci"], meta["vlan_proto"]) == (0x0800, 1, 0x200A, 0x8100)


def test_the_tag_is_put_back_even_after_an_error() -> None:
    made = batch_of([TAGGED])
    with pytest.raises(RuntimeError), view(made, PROFILES["packet"], Env(strip_vlan=True), meta=True):
        raise RuntimeError
    assert made.packet(0) == TAGGED


def test_cooked_headers_tell_the_live_metadata() -> None:
    sll = struct.pack(">HHH8sH", 4, 772, 6, bytes(8), 0x0800) + FRAME[14:]
    _, _, meta = seen(sll, "packet", linktype=113)
    assert (meta["pkt_type"], meta["hatype"], meta["protocol"], meta["network_offset"]) == (4, 772, 0x0800, 16)
    sll2 = struct.pack(">HHIHBB8s", 0x86DD, 0, 7, 1, 2, 6, bytes(8)) + FRAME6[14:]
    _, _, meta = seen(sll2, "packet", linktype=276)
    assert (meta["ifindex"], meta["protocol"], meta["pkt_type"], meta["network_offset"]) == (7, 0x86DD, 2, 20)


def test_a_netlink_socket_sees_the_message_alone() -> None:
    assert seen(bytes(16) + b"message!", "unix", linktype=253)[1] == b"message!"


def test_stated_metadata_wins() -> None:
    meta = seen(FRAME, "packet", Env(metadata={"mark": 7, "ifindex": 3, "protocol": 1}, cpu=2))[2]
    assert (meta["mark"], meta["ifindex"], meta["ingress_ifindex"], meta["protocol"], meta["cpu"]) == (7, 3, 3, 1, 2)
    with pytest.raises(UsageError, match="unknown metadata 'colour'"):
        seen(FRAME, "packet", Env(metadata={"colour": 1}))


@pytest.mark.parametrize("size", range(60))
@pytest.mark.parametrize("profile", list(PROFILES))
@pytest.mark.parametrize("linktype", [0, 1, 9, 12, 108, 113, 127, 228, 253, 276, 999])
def test_short_packets_stay_inside_their_bytes(size: int, profile: str, linktype: int) -> None:
    skbs, body, _ = seen(FRAME6[:size], profile, Env(strip_vlan=True, mac=HOST), linktype=linktype)
    assert int(skbs.head[0]) >= 0
    assert int(skbs.captured[0]) == len(body) <= max(int(skbs.length[0]), 0) <= size or not skbs.delivered[0]
