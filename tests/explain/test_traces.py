"""Traces against the engines: the same verdicts, the same registers at every step, bytes under their right names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pktbpf.cli import cli
from pktbpf.engine.base import Env, Fault, profile
from pktbpf.engine.reference import Random, Referenced
from pktbpf.engine.reference_extended import Exited
from pktbpf.engine.reference_packet import Faulted, Packet
from pktbpf.engine.skb import view
from pktbpf.explain.core import Core, one_row
from pktbpf.explain.fields import dissect
from pktbpf.explain.run import Tracer, state_of, trace_filter, trace_row
from pktbpf.explain.why import deciding_line, reason, sentence
from pktbpf.filter import Filter, verify
from pktbpf.loader import load_filter_argument
from pktbpf.program import Program, Verified
from pktbpf.testing import CapturedPacket, CaptureUnderTest, FilterUnderTest, PacketBuilder

ROOT = Path(__file__).parents[2]
FILTERS = sorted(p for p in (ROOT / "filters").iterdir() if p.is_file())
MAKE = PacketBuilder()
WRITTEN = (0, 2, 6, 7)  # registers that translated programs use


def pktbpf(*arguments: str, given: str = "") -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli, list(arguments), input=given)


def batch_of_capture(packets: list[CapturedPacket]) -> object:
    from pktbpf.capture.batch import batch_of

    return batch_of(packets, wirelens=[p.wirelen for p in packets])


@pytest.mark.parametrize("path", FILTERS, ids=lambda path: path.name)
def test_verdicts_are_those_of_the_interpreter(path: Path) -> None:
    program = load_filter_argument(str(path))
    packets = list(CaptureUnderTest(ROOT / "pcaps" / "web.pcap"))[::5] + list(
        CaptureUnderTest(ROOT / "pcaps" / "snaplen.pcap")
    )
    filter = Filter(program)
    batch = batch_of_capture(packets)
    with view(batch, profile("packet"), Env(), meta=True) as skbs:  # type: ignore[arg-type]
        for row in range(len(packets)):
            state = state_of(filter.runner)
            outcome = filter.runner.run(one_row(skbs, row))
            trace = trace_row(filter.verified, filter.profile, Env(), skbs, row, linktype=1, state=state)
            assert (trace.verdict, trace.fault) == (outcome.verdict[0], outcome.fault[0])
            said = sentence(trace)
            assert said.startswith("accepted because" if trace.verdict else "rejected because")
            assert "instruction" in deciding_line(trace)


@pytest.mark.parametrize("name", ["http-get.bpf", "headers-only.bpf", "dhcp-client-raw.bpf", "ptp.bpf"])
def test_stopped_core_has_the_registers_of_the_reference(name: str) -> None:
    """The compiled core, stopped after every instruction, against the plain extended machine."""
    translated = verify(load_filter_argument(str(ROOT / "filters" / name))).program
    program = Program(translated.insns)
    packets = list(CaptureUnderTest(ROOT / "pcaps" / "web.pcap"))[20:40]
    batch = batch_of_capture(packets)
    with view(batch, profile("packet"), Env(), meta=True) as skbs:  # type: ignore[arg-type]
        for row in range(len(packets)):
            core = Core(Verified(program, trusted=True), Env(), one_row(skbs, row))
            machine = Referenced(program, Env(), Random.seeded(0)).machine(Packet.of(skbs, row))
            machine.regs[6] = machine.regs[0] = 0
            steps, count, ending = machine.steps(program.insns), 0, None
            while ending is None:
                slot = machine.pc
                try:
                    next(steps)
                except (Exited, Faulted) as stopped:
                    ending = stopped
                    break
                assert core.owner(core.after(count).slot)[2] == slot
                count += 1
                stop = core.after(count)
                assert [stop.registers[r] for r in WRITTEN] == [machine.regs[r] for r in WRITTEN]
            whole = core.whole()
            assert ending is not None
            assert (whole.verdict, whole.fault) == (getattr(ending, "value", 0), getattr(ending, "fault", Fault.NONE))
            assert count > 3


@pytest.mark.parametrize(
    ("packet", "offset", "size", "name", "text"),
    [
        (MAKE.tcp(dport=80), 12, 2, "ether.type", "0x0800"),
        (MAKE.tcp(dport=80), 23, 1, "ip.proto", "6"),
        (MAKE.tcp(dport=80), 36, 2, "tcp.dstport", "80"),
        (MAKE.tcp(dport=80, src="10.1.2.3"), 26, 4, "ip.src", "10.1.2.3"),
        (MAKE.tcp(dport=80, options=b"\1\1\1\0"), 34, 2, "tcp.srcport", "40000"),
        (MAKE.ip(b"\0\5\0\6" * 5, proto=6, options=b"\1\1\1\1"), 40, 2, "tcp.dstport", "6"),
        (MAKE.tcp(dport=443, src="2001:db8::5"), 56, 2, "tcp.dstport", "443"),
        (MAKE.tcp(dport=443, src="2001:db8::5"), 22, 4, "ip6.src[0:4]", None),
        (MAKE.udp("xyz", dport=9, vlan=[7, 8]), 12, 2, "ether.type", "0x88a8"),
        (MAKE.udp("xyz", dport=9, vlan=[7, 8]), 20, 2, "vlan.type", "0x0800"),
        (MAKE.udp("xyz", dport=9, vlan=5), 40, 2, "udp.dstport", "9"),
        (MAKE.icmp(type=3), 34, 1, "icmp.type", "3"),
        (MAKE.icmp6(type=135), 54, 1, "icmp6.type", "135"),
        (MAKE.arp(op=2), 20, 2, "arp.op", "2"),
        (MAKE.dns(id=0x1234), 42, 2, "dns.id", "0x1234"),
        (MAKE.udp("hello"), 42, 4, "udp.payload[0:4]", None),
        (MAKE.tcp(dport=80), 34, 4, "tcp.srcport+tcp.dstport", None),
        (MAKE.eth("x" * 10, type=0x1234), 14, 2, "ether.payload[0:2]", None),
        (MAKE.ip("x" * 40, proto=6, frag_offset=9), 34, 2, "ip.payload[0:2]", None),
    ],
)
def test_fields_by_offset(packet: bytes, offset: int, size: int, name: str, text: str | None) -> None:
    from pktbpf.explain.fields import format_value

    found = dissect(packet)
    assert found.name(offset, size) == name
    if text is not None:
        field = found.find(offset, size)
        assert field is not None
        assert format_value(found.value(field), field.form, field.size) == text


@pytest.mark.parametrize("end", range(0, 60, 3))
def test_dissecting_cut_packets(end: int) -> None:
    for whole in (MAKE.tcp("x" * 30, vlan=3), MAKE.dns(), MAKE.arp(), MAKE.tcp(src="2001:db8::1")):
        found = dissect(whole[:end])
        assert all(f.offset + f.size <= end for f in found.fields)
        assert found.lines()[:1] != [""] or not end


WHY = [
    ("tcp port 80", MAKE.tcp(dport=80), "accepted because ether.type = 0x0800, ip.proto = 6, tcp.dstport = 80"),
    ("tcp port 80", MAKE.tcp(dport=443), "rejected because tcp.srcport = 40000, not 80, tcp.dstport = 443, not 80"),
    ("tcp port 80", MAKE.udp(dport=80), "rejected because ip.proto = 17, not 6"),
    ("tcp port 80", MAKE.arp(), "rejected because ether.type = 0x0806, not 0x86dd or 0x0800"),
    ("tcp port 80", MAKE.ip(b"\0\x50" * 10, proto=6, frag_offset=5), "rejected because ip.frag_offset = 5"),
    ("tcp[13] & 2 != 0", MAKE.tcp(), "accepted because ether.type = 0x0800, ip.proto = 6, tcp.syn = 1"),
    ("vlan 7", MAKE.udp(vlan=7), "accepted because ether.type = 0x8100, vlan.vid = 7"),
    ("arp[6:2] = 2", MAKE.arp(op=1), "rejected because arp.op = 1, not 2"),
    ("src net 10.0.0.0/8 and ip", MAKE.udp(src="10.9.8.7"), "accepted because ether.type = 0x0800"),
    ("ip[0] & 0xf0 = 0x50", MAKE.udp(), "rejected because ip.version = 4, not 5"),
    ("greater 100", MAKE.udp(), "rejected because packet length = 42, not ≥ 100"),
    ("ip6", MAKE.udp(src="2001:db8::1"), "accepted because ether.type = 0x86dd"),
    ("ld [60]\nret #1", MAKE.udp(), "rejected because instruction 0, ld [60], loads outside of the packet of 42 bytes"),
    ("ret #1", MAKE.udp(), "accepted because the program returns 1 without testing anything"),
]


@pytest.mark.parametrize(("program", "packet", "said"), WHY)
def test_why_in_words(program: str, packet: bytes, said: str) -> None:
    assert sentence(trace_filter(Filter(program), packet)).startswith(said)


def test_deciding_tests_decide() -> None:
    """Each deciding test turned round gives the other verdict, on the reference machine."""
    filter = Filter("tcp port 80 or udp port 53 or arp")
    for packet in CaptureUnderTest(ROOT / "pcaps" / "web.pcap"):
        trace = trace_filter(filter, packet)
        found = reason(trace)
        assert 1 <= len(found.deciding) <= 3
        turned = [trace.rerun(step) for step in found.all]
        assert len(found.all) == 1 or all(bool(value) != trace.accepted for value in turned)


def test_maps_see_the_packets_before() -> None:
    path = str(ROOT / "filters" / "ebpf" / "proto_counts.o")
    tracer = Tracer(str(ROOT / "pcaps" / "dns.pcap"), path)
    trace = tracer.one(12)
    before = sum(int(value) for value in trace.maps["counts"].values())
    assert before == 11
    with trace.world(len(trace.steps)):
        assert sum(int(value) for value in trace.maps["counts"].values()) == 12
    assert sum(int(value) for value in trace.maps["counts"].values()) == 11
    notes = [step.note for step in trace.steps]
    assert any(note.startswith("bpf_map_lookup_elem, counts, key 11 00 00 00") for note in notes)
    assert any(read.text == "skb.protocol = 0x0800" for step in trace.steps for read in step.reads)
    assert any(step.line.startswith("./filters/ebpf/proto_counts.c:") for step in trace.steps)


def test_random_numbers_go_on_from_packet_to_packet() -> None:
    """What a trace of packet N says is what a replay said of it."""
    path = str(ROOT / "filters" / "icmp-one-in-four.bpf")
    capture = CaptureUnderTest(ROOT / "pcaps" / "icmp.pcap")
    verdicts = Filter(path).run_many(list(capture)).tolist()
    assert 0 < sum(value != 0 for value in verdicts) < len(verdicts)
    for number in (1, 8, 20, 33):
        assert Tracer(str(capture.path), path).one(number).verdict == verdicts[number - 1]
    subject = FilterUnderTest(path)
    judged = [subject.judge(packet) for packet in capture]
    assert [one.trace().verdict for one in judged] == [one.verdict for one in judged] == verdicts


def test_variables_and_remainders_of_compiled_programs() -> None:
    path = str(ROOT / "filters" / "ebpf" / "sampler_ringbuf.o")
    trace = Tracer(str(ROOT / "pcaps" / "web.pcap"), path).one(16)
    assert sentence(trace) == "rejected because period = 16, not 0, seen % period = 15, not 0"


def test_bits_in_swapped_bytes_and_stripped_tags() -> None:
    path = str(ROOT / "filters" / "ebpf" / "parser_chain.o")
    trace = Tracer(str(ROOT / "pcaps" / "dns.pcap"), path, program="parser_chain").one(4)
    said = "accepted because ether.type = 0x0800, ip.frag_offset = 0, ip.proto = 17"
    assert sentence(trace) == f"{said}, and the program returns 98, computed from ip.version_ihl"
    assert any(step.note == "bpf_tail_call, goes on in parse_ip" for step in trace.steps)
    live = str(ROOT / "filters" / "vlan-10-live.bpf")
    tagged = Tracer(str(ROOT / "pcaps" / "vlan.pcap"), live, env=Env(strip_vlan=True)).one(3)
    assert sentence(tagged) == "accepted because skb.vlan_present = 1, not 0, skb vlan id = 10"


def test_trace_command_text() -> None:
    done = pktbpf("trace", "pcaps/web.pcap", "--filter", "filters/tcp-port-80.bpf", "--packet", "25")
    assert done.exit_code == 0
    assert "ip.proto = 6" in done.output
    assert "tcp.dstport = 80 -> 14" in done.output
    assert done.output.splitlines()[-1].startswith("accepted because ether.type = 0x0800, ip.proto = 6")


def test_trace_command_backwards() -> None:
    done = pktbpf("trace", "pcaps/web.pcap", "-F", "filters/tcp-port-80.bpf", "-n", "25", "--backwards")
    lines = done.output.splitlines()
    steps = [int(line.split()[0]) for line in lines if line[:5].strip().isdigit()]
    assert steps == sorted(steps, reverse=True) == list(range(11, 0, -1))
    load = next(n for n, line in enumerate(lines) if "[x + 16]" in line)
    assert lines[load + 1].strip() == "X from step 8"


def test_trace_command_json() -> None:
    done = pktbpf("trace", "pcaps/dns.pcap", "-F", "udp port 53", "-n", "3", "--format", "json")
    found = json.loads(done.output)
    assert found["accepted"]
    assert found["packet"] == 3
    reads = [read["text"] for step in found["steps"] for read in step["reads"]]
    assert "ip.proto = 17" in reads
    assert found["why"].startswith("accepted because")
    assert {"name": "ip.proto", "offset": 23, "size": 1, "value": 17} in found["fields"]


def test_why_command() -> None:
    done = pktbpf("why", "pcaps/web.pcap", "--filter", "tcp port 80", "--packet", "25")
    assert done.output == "accepted because ether.type = 0x0800, ip.proto = 6, tcp.dstport = 80\n"
    every = pktbpf("why", "pcaps/arp.pcap", "--filter", "arp", "--format", "json")
    rows = [json.loads(line) for line in every.output.splitlines()]
    assert [row["packet"] for row in rows] == list(range(1, len(rows) + 1))
    assert {test["test"] for row in rows if row["accepted"] for test in row["tests"]} == {"ether.type = 0x0806"}


def test_absent_packet_is_a_usage_error() -> None:
    done = pktbpf("why", "pcaps/arp.pcap", "--filter", "arp", "--packet", "9999")
    assert done.exit_code == 2
    assert "there is no packet 9999" in done.output


def test_cooked_and_raw_captures_are_named() -> None:
    for capture in ("any-sll.pcap", "any-sll2.pcap", "raw.pcap", "null.pcap"):
        done = pktbpf("why", f"pcaps/{capture}", "--filter", "tcp")
        assert done.exit_code == 0
        assert "ip.proto = " in done.output
        assert "packet[" not in done.output


def test_parts_of_sockets_without_link_header() -> None:
    trace = trace_filter(Filter("ldh [2]\njeq #53, yes, no\nyes: ret #1\nno: ret #0", attach="udp"), MAKE.dns()[34:])
    assert sentence(trace) == "accepted because udp.dstport = 53"
    whole = MAKE.dns()
    inside = trace_filter(Filter("ldh [2]\njeq #53, yes, no\nyes: ret #1\nno: ret #0", attach="udp"), whole, start=34)
    assert sentence(inside) == "accepted because udp.dstport = 53"
