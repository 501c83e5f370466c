"""Reasons where the verdict is a computed value, and the wording of what extended programs test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.explain.run import Tracer, trace_filter
from pktbpf.explain.why import deciding_line, reason, sentence
from pktbpf.filter import Filter
from pktbpf.testing import PacketBuilder

ROOT = Path(__file__).parents[2]
MAKE = PacketBuilder()
TCP, UDP, ARP = MAKE.tcp(dport=80), MAKE.udp(dport=53), MAKE.arp()

PROTOCOL = "ldh [12]\njeq #0x800, inet, no\ninet: ldb [23]\nsub #6\nret a\nno: ret #0"
EITHER = "ldh [12]\njeq #0x800, inet, no\ninet: ldb [23]\nsub #6\nret a\nno: ldb [23]\nsub #6\nret a"
MASKED = "ld [26]\nand #0\nret a"

COMPUTED = [
    ("ldh [12]\nret a", ARP, "accepted because the program returns ether.type = 0x0806"),
    ("ld #len\nret a", UDP, "accepted because the program returns packet length = 42"),
    (PROTOCOL, UDP, "accepted because ether.type = 0x0800, and the program returns ip.proto - 6 = 11"),
    (PROTOCOL, TCP, "rejected because the program returns ip.proto - 6 = 0"),
    (PROTOCOL, ARP, "rejected because ether.type = 0x0806, not 0x0800"),
    (MASKED, UDP, "rejected because the program returns ip.src & 0 = 0"),
    ("ldx 4*([14]&0xf)\ntxa\nret a", UDP, "accepted because the program returns ip header length = 20"),
    ("r6 = r1\nr0 = *(u8 *)skb[23]\nr0 -= 6\nexit", TCP, "rejected because the program returns ip.proto - 6 = 0"),
    ("r6 = r1\nr0 = *(u8 *)skb[23]\nr0 = -r0\nexit", UDP,
     "accepted because the program returns -ip.proto = 0xffffffef"),
    ("r6 = r1\nr0 = *(u8 *)skb[23]\nr0 += -17\nexit", UDP, "rejected because the program returns ip.proto - 17 = 0"),
    ("r6 = r1\nr0 = *(u8 *)skb[23]\nr0 s/= 2\nexit", UDP,
     "accepted because the program returns 8, computed from ip.proto"),
    ("r0 = 5\nr0 -= 5\nexit", UDP, "rejected because the program returns 0 without testing anything"),
    ("*(u64 *)(r10 -8) = 258\nr0 = *(u8 *)(r10 -7)\nexit", UDP,
     "accepted because the program returns 1 without testing anything"),
]  # fmt: skip


@pytest.mark.parametrize(("program", "packet", "said"), COMPUTED)
def test_a_computed_verdict_is_told_with_its_origin(program: str, packet: bytes, said: str) -> None:
    assert sentence(trace_filter(Filter(program), packet)) == said


def test_no_branch_stands_in_for_a_computed_verdict() -> None:
    """A test whose other outcome might have led elsewhere did not decide where the returned value was 0 by itself."""
    trace = trace_filter(Filter(EITHER), TCP)
    assert [step.text for step in reason(trace).deciding] == ["ret"]
    assert deciding_line(trace) == "instruction 4 (ret): returns ip.proto - 6 = 0"


def test_registers_of_a_function_do_not_leak_into_its_caller() -> None:
    program = "r7 = 5\ncall pc+2\nr0 = r7\nexit\nr7 = *(u32 *)(r1 +0)\nr0 = r7\nexit"
    assert sentence(trace_filter(Filter(program), UDP)) == (
        "accepted because the program returns 5 without testing anything"
    )


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("allow_lpm", 25, "rejected because the key is not in map allowed"),
        ("dest_bytes", 25, "accepted because skb.protocol = 0x0800, bpf_skb_load_bytes() succeeded"),
        ("proto_counts", 25, "accepted because the program returns 0xffffffff whatever it tests"),
        ("rate_limit", 25, "accepted because the key is in map buckets, burst * 1000 = 20000 > 999"),
        ("tcp_options", 25, "accepted because ip.proto = 6, ip.frag[0:1] & 0x1f = 0, ip.frag[1:1] = 0"),
    ],
)
def test_objects_in_words(name: str, number: int, said: str) -> None:
    path = str(ROOT / "filters" / "ebpf" / f"{name}.o")
    assert sentence(Tracer(str(ROOT / "pcaps" / "web.pcap"), path).one(number)) == said


def test_a_failed_call_is_told_with_its_errno() -> None:
    program = """
        r6 = r1
        r2 = 4000
        r3 = r10
        r3 += -8
        r4 = 4
        call bpf_skb_load_bytes
        if r0 s< 0 goto no
        r0 = 1
        exit
        no: r0 = 0
        exit
    """
    trace = trace_filter(Filter(program), UDP)
    assert sentence(trace) == "rejected because bpf_skb_load_bytes() failed (EFAULT)"


def test_a_run_that_was_not_recorded_to_its_end_names_no_reason() -> None:
    program = "r0 = 0\nagain: r0 += 1\nif r0 != 50 goto again\nr0 &= 1\nexit"
    trace = trace_filter(Filter(program), UDP, limit=20)
    assert sentence(trace).startswith("rejected after 103 instructions; what decided is not known, only 20")


def test_why_as_json_has_the_computed_value() -> None:
    arguments = ["why", "pcaps/web.pcap", "-F", PROTOCOL, "--format", "json", "-n", "1", "-n", "25"]
    rows = [json.loads(line) for line in CliRunner().invoke(cli, arguments).output.splitlines()]
    assert [row["computed"] for row in rows] == [None, "ip.proto - 6 = 0"]
