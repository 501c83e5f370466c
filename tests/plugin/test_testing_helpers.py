"""pktbpf.testing without pytest's fixtures: packets from everything, the builder, the strategies."""

from __future__ import annotations

from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings

from pktbpf import testing
from pktbpf.engine.base import Env
from pktbpf.errors import UsageError
from pktbpf.filter import Filter
from pktbpf.program import ClassicProgram
from pktbpf.testing import CaptureUnderTest, FilterUnderTest, PacketBuilder, as_packet, classic_programs, packets
from pktbpf.translator.check import check

MAKE = PacketBuilder()
ROOT = Path(__file__).parents[2]


def test_public_names() -> None:
    assert list(testing.__all__) == sorted(testing._HOME)
    assert all(getattr(testing, name).__doc__ for name in testing.__all__)


def test_packets_from_everything() -> None:
    raw = MAKE.udp("hello")
    scapy = pytest.importorskip("scapy.layers.all")
    forms = [
        bytearray(raw), memoryview(raw), raw.hex(), raw.hex(" "), raw.hex(":"), "0x" + raw.hex(),
        dpkt.ethernet.Ethernet(raw), scapy.Ether(raw),
        "\n".join(f"{at:04x}  {raw[at : at + 16].hex(' ')}" for at in range(0, len(raw), 16)),
    ]  # fmt: skip
    assert all(as_packet(form) == raw for form in forms)
    with pytest.raises(UsageError, match="is not hexadecimal"):
        as_packet("hello")
    with pytest.raises(UsageError, match="cannot make a packet of int"):
        as_packet(5)


def test_built_packets_are_what_dpkt_sees() -> None:
    tcp = dpkt.ethernet.Ethernet(MAKE.tcp("data", sport=7, dport=80, flags="PA", vlan=9))
    assert (tcp.vlan_tags[0].id, tcp.ip.tcp.sport, tcp.ip.tcp.dport, tcp.ip.tcp.flags) == (9, 7, 80, 0x18)
    assert bytes(tcp.ip.tcp.data) == b"data"
    six = dpkt.ethernet.Ethernet(MAKE.udp("abc", src="2001:db8::9", dst="2001:db8::8"))
    assert (six.data.plen, six.data.udp.ulen) == (11, 11)
    question = dpkt.dns.DNS(bytes(dpkt.ethernet.Ethernet(MAKE.dns("www.example.test", qtype="AAAA")).ip.udp.data))
    assert (question.qd[0].name, question.qd[0].type) == ("www.example.test", 28)
    arp = dpkt.ethernet.Ethernet(MAKE.arp(op=2)).data
    assert (arp.op, arp.spa) == (2, bytes([192, 0, 2, 1]))


@pytest.mark.parametrize("packet", [
    MAKE.tcp("x" * 7), MAKE.udp("y"), MAKE.icmp("zz"), MAKE.icmp6(), MAKE.tcp(src="2001:db8::1", options=b"\1\1\1"),
    MAKE.udp("odd", src="2001:db8::1"), MAKE.ip(options=b"\7"),
])  # fmt: skip
def test_checksums_are_those_of_scapy(packet: bytes) -> None:
    layers = pytest.importorskip("scapy.layers.all")
    built = layers.Ether(packet)
    layer = built
    while layer:
        if "chksum" in getattr(layer, "fields", {}):
            layer.fields.pop("chksum")
        if "cksum" in getattr(layer, "fields", {}):
            layer.fields.pop("cksum")
        layer = layer.payload
    assert bytes(layers.Ether(bytes(built))) == packet


def test_wrong_fields_are_told() -> None:
    with pytest.raises(UsageError, match="unknown TCP flag 'Q'"):
        MAKE.tcp(flags="Q")
    with pytest.raises(UsageError, match="not a link address"):
        MAKE.eth(src="02:00")
    with pytest.raises(UsageError, match="unknown kind of packet 'x'"):
        MAKE.build("x")


@given(program=classic_programs(), packet=packets())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_programs_pass_the_checks_and_engines_agree(program: ClassicProgram, packet: bytes) -> None:
    check(program)
    one, other = (Filter(program, engine=name, env=Env()).outcome(packet) for name in ("interpreter", "reference"))
    assert (one.verdict[0], one.fault[0]) == (other.verdict[0], other.fault[0])


@pytest.mark.kernel
@given(program=classic_programs(max_length=12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_the_live_kernel_admits_every_program(program: ClassicProgram) -> None:
    from pktbpf.kernel.rigs import open_rig

    with open_rig("unix") as rig:
        assert rig.attach_classic(program.to_bytes()) == 0


def test_strategies_reach_what_they_say() -> None:
    """Within a few hundred examples there are jumps both ways, scratch slots, every kind of packet."""
    seen: set[str] = set()

    @given(program=classic_programs())
    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    def collect(program: ClassicProgram) -> None:
        seen.update(insn.row.name for insn in program.insns if insn.row is not None)

    collect()
    assert {"JEQ_K", "JSET_X", "LD_MEM", "STX", "JA", "LDX_MSH", "RET_A", "DIV_X", "LD_IND_H"} <= seen


def test_captured_packets_know_where_they_are_from() -> None:
    web = CaptureUnderTest(ROOT / "pcaps" / "web.pcap", "web.pcap")
    assert len(web) == 210
    assert web.packet(25) is web[24]
    assert repr(web.packet(25)) == "<packet 25 of web.pcap, 74 bytes>"
    with pytest.raises(UsageError, match="has 210 packets, there is no packet 211"):
        web.packet(211)
    judgement = FilterUnderTest("tcp port 80").accepts(web.packet(1))
    assert judgement.explain()[0] == "packet 1 of web.pcap, 42 bytes:"


def test_captured_frames_find_byte_0_for_every_profile() -> None:
    dns = CaptureUnderTest(ROOT / "pcaps" / "dns.pcap")
    port = FilterUnderTest("ldh [2]\njeq #53, yes, no\nyes: ret #8\nno: ret #0\n", attach="udp")
    assert port.accepts(dns.packet(3))
    assert port.kept(dns.packet(3)) == 8
    lines = port.accepts(dns.packet(1)).explain()
    assert any("a socket of profile udp never gets this packet" in line for line in lines)


@pytest.mark.parametrize("program", ["tcp port 80", "filters/icmp-one-in-four.bpf", "filters/ebpf/allow_lpm.o"])
def test_batches_and_single_packets_agree(program: str) -> None:
    """Random numbers and maps included, whose filters run packet by packet."""
    capture = CaptureUnderTest(ROOT / "pcaps" / "icmp.pcap")
    one, other = FilterUnderTest(program), FilterUnderTest(program)
    batched = [(j.verdict, j.fault, j.kept, j.length) for j in one.judge_all(capture)]
    assert batched == [(j.verdict, j.fault, j.kept, j.length) for j in map(other.judge, capture)]
    mixed = [*capture.packets[:3], b"\0" * 60, *capture.packets[3:5]]
    assert len(list(FilterUnderTest(program).judge_all(mixed))) == 6
    last = list(FilterUnderTest(program).judge_all(capture))[-1]
    assert last.trace().verdict == last.verdict


def test_explanations_see_maps_as_they_were() -> None:
    """The second packet is rejected because the first one used up the budget; the explanation says so too."""
    once = FilterUnderTest(
        '.license "GPL"\n.map seen ARRAY key_size=4 value_size=8 max_entries=1\n'
        "*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr1 = map[seen] ll\ncall bpf_map_lookup_elem\n"
        "if r0 == 0 goto no\nr1 = *(u64 *)(r0 + 0)\nif r1 != 0 goto no\nr1 = 1\n*(u64 *)(r0 + 0) = r1\nr0 = 1\nexit\n"
        "no:\nr0 = 0\nexit\n"
    )  # fmt: skip
    first, second = once.accepts(b"\0" * 60), once.accepts(b"\0" * 60)
    assert (bool(first), bool(second)) == (True, False)
    assert "seen value = 0" in "\n".join(first.explain())
    assert "seen value = 1, not 0" in "\n".join(second.explain())
    assert int(once.maps["seen"][0]) == 1
