"""replay(): counters, columns, trimming, policies, several filters and captures, mixed link types, errors."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay_bytes import ARP, TCP_80, UDP_53, VLAN_ARP, pcap, pcapng

import pktbpf
from pktbpf import loader
from pktbpf.capture.batch import Batch
from pktbpf.engine.base import Env, Fault, profile
from pktbpf.engine.skb import view
from pktbpf.errors import (
    CaptureError,
    ExpressionError,
    FilterSyntaxError,
    LinkTypeError,
    ProgramRefused,
    UsageError,
)
from pktbpf.loader import load
from pktbpf.replayer import session
from pktbpf.replayer.selection import Selection
from pktbpf.replayer.session import Session

MIXED = pcap([TCP_80, ARP, UDP_53, ARP, TCP_80])
ALL = "ret #-1"


def test_counters_and_columns_of_one_filter() -> None:
    results = pktbpf.replay(MIXED, "arp")
    only = results.filters[0]
    assert (results.packets, results.accepted, results.dropped) == (5, 2, 3)
    assert (only.accepted, only.dropped, only.truncated, only.packets) == (2, 3, 0, 5)
    assert only.bytes_kept == 2 * len(ARP)
    assert results.bytes == sum(map(len, (TCP_80, ARP, UDP_53, ARP, TCP_80)))
    assert results.linktypes == [1]
    assert results.complete
    assert results.elapsed > 0
    columns = results.columns
    assert columns is not None
    assert len(columns) == 5
    assert columns.number.tolist() == [1, 2, 3, 4, 5]
    assert columns.timestamp.tolist() == [(1000 + n) * 10**9 + n * 1000 for n in range(5)]
    assert columns.caplen.tolist() == columns.wirelen.tolist() == [len(p) for p in (TCP_80, ARP, UDP_53, ARP, TCP_80)]
    assert only.verdict is not None
    assert only.verdict.dtype == np.uint32
    assert only.verdict.tolist() == [0, 262144, 0, 262144, 0]
    assert only.kept is not None
    assert only.kept.tolist() == [0, len(ARP), 0, len(ARP), 0]


def test_without_columns_nothing_per_packet_is_kept() -> None:
    results = pktbpf.replay(MIXED, "arp", columns=False)
    assert results.columns is None
    assert results.filters[0].verdict is None
    assert results.accepted == 2


def test_no_packets_at_all() -> None:
    results = pktbpf.replay(pcap([]), "arp")
    assert (results.packets, results.accepted, results.linktypes) == (0, 0, [1])
    assert results.columns is not None
    assert len(results.columns) == 0
    assert results.filters[0].verdict is not None


def test_several_filters_and_captures_in_one_pass() -> None:
    program = pktbpf.load("ldh [12] / jeq #0x806 jt 2 jf 3 / ret #20 / ret #0")
    results = pktbpf.replay([MIXED, pcap([ARP])], [program, "tcp", pktbpf.Filter(program)])
    assert [one.accepted for one in results.filters] == [3, 2, 3]
    assert [one.truncated for one in results.filters] == [3, 0, 3]
    assert results.filters[0].bytes_kept == 60
    assert [capture.packets for capture in results.captures] == [5, 1]
    assert [capture.accepted for capture in results.captures] == [4, 1]
    assert results.columns is not None
    assert results.columns.capture.tolist() == [0] * 5 + [1]
    assert results.columns.number.tolist() == [1, 2, 3, 4, 5, 1]


def test_mixed_link_types_compile_an_expression_for_each() -> None:
    raw_tcp = TCP_80[14:]
    source = pcapng([(0, TCP_80), (1, raw_tcp), (0, ARP), (1, UDP_53[14:])], [1, 101])
    results = pktbpf.replay(source, ["tcp", "udp or arp"])
    assert results.linktypes == [1, 12]
    assert results.filters[0].verdict is not None
    assert (results.filters[0].verdict > 0).tolist() == [True, True, False, False]
    assert results.filters[1].verdict is not None
    assert (results.filters[1].verdict > 0).tolist() == [False, False, True, True]


def test_a_program_for_another_link_type_is_an_error_with_its_name() -> None:
    program = pktbpf.compile("arp", linktype="EN10MB")
    with pytest.raises(LinkTypeError, match="made for EN10MB, the packets are RAW"):
        pktbpf.replay(pcap([TCP_80[14:]], linktype=101), program)
    assert pktbpf.replay(pcap([TCP_80[14:]], linktype=101), ALL).accepted == 1


def test_linktype_must_be_that_of_the_packets() -> None:
    assert pktbpf.replay(MIXED, "arp", linktype="EN10MB").accepted == 2
    with pytest.raises(UsageError, match="EN10MB, not RAW"):
        pktbpf.replay(MIXED, "arp", linktype="RAW")


@pytest.mark.parametrize("wanted", [1, 2, 3, 4])
def test_count_stops_after_the_last_wanted_packet(wanted: int) -> None:
    accepted_at = [1, 2, 4, 5]
    results = pktbpf.replay(MIXED, ["tcp", "arp"], count=wanted)
    assert results.accepted == wanted
    assert results.packets == accepted_at[wanted - 1]
    assert sum(one.accepted for one in results.filters) == wanted
    assert results.columns is not None
    assert len(results.columns) == results.packets


def test_count_larger_than_there_are_and_nonsense() -> None:
    assert pktbpf.replay(MIXED, "arp", count=99).packets == 5
    with pytest.raises(UsageError, match="count of 0"):
        pktbpf.replay(MIXED, "arp", count=0)


def test_indeterminate_packets_and_what_to_do_with_them() -> None:
    source = pcap([TCP_80[:30], TCP_80, TCP_80[:30]], wirelens=[len(TCP_80)] * 3)
    load_past = "ldh [36] / ret #-1"
    counted = pktbpf.replay(source, load_past)
    only = counted.filters[0]
    assert (only.accepted, only.dropped, only.indeterminate) == (1, 2, 2)
    assert only.fault is not None
    assert only.fault.tolist() == [Fault.INDETERMINATE, 0, Fault.INDETERMINATE]
    accepted = pktbpf.replay(source, load_past, indeterminate="accept").filters[0]
    assert (accepted.accepted, accepted.indeterminate, accepted.bytes_kept) == (3, 2, 60 + len(TCP_80))
    with pytest.raises(CaptureError, match=r"packet 1: .* past the 30 captured of 58 bytes") as caught:
        pktbpf.replay(source, load_past, indeterminate="error")
    assert caught.value.results.packets == 0
    part = pcap([TCP_80, TCP_80[:30]], wirelens=[58, 58])
    kept = pktbpf.replay(part, load_past, indeterminate="error", errors="keep")
    assert (kept.packets, kept.accepted, len(kept.errors)) == (1, 1, 1)
    with pytest.raises(UsageError, match="unknown policy"):
        pktbpf.replay(source, load_past, indeterminate="perhaps")  # type: ignore[arg-type]


def test_undelivered_packets_and_the_floor_of_a_udp_socket() -> None:
    results = pktbpf.replay(pcap([UDP_53, ARP]), "ldh [2] / jeq #53 jt 2 jf 3 / ret #1 / ret #0", attach="udp")
    only = results.filters[0]
    assert (only.accepted, only.undelivered, only.truncated) == (1, 1, 1)
    assert only.kept is not None
    assert only.kept.tolist() == [8, 0]
    assert only.bytes_kept == 14 + 20 + 8


def test_expressions_need_a_header_that_the_profile_shows() -> None:
    assert pktbpf.replay(MIXED, "udp", attach="packet-dgram").accepted == 1
    with pytest.raises(UsageError, match="has no header that the expression"):
        pktbpf.replay(MIXED, "udp", attach="unix")


def test_strip_vlan_is_undone_before_anything_is_written() -> None:
    source = pcap([VLAN_ARP, ARP])
    out = io.BytesIO()
    program = "ld vlan_avail / jeq #1 jt 2 jf 3 / ret #-1 / ret #0"
    results = pktbpf.replay(source, program, env=Env(strip_vlan=True), write=out)
    assert results.filters[0].kept is not None
    assert results.filters[0].kept.tolist() == [len(ARP), 0]
    assert out.getvalue() == pcap([VLAN_ARP])
    assert pktbpf.replay(source, program).accepted == 0


def test_metadata_by_keyword() -> None:
    assert pktbpf.replay(MIXED, "ld mark / ret a", mark=0).accepted == 0
    assert pktbpf.replay(MIXED, "ld mark / ret a", mark=7).filters[0].bytes_kept == 35
    with pytest.raises(UsageError, match="unknown metadata 'colour'"):
        pktbpf.replay(MIXED, ALL, colour=3)


@pytest.mark.parametrize("nano", [False, True])
def test_written_packets_are_cut_to_the_return_value(tmp_path: Path, nano: bool) -> None:
    target = tmp_path / "out.pcap"
    filters = ["ldh [12] / jeq #0x806 jt 2 jf 3 / ret #20 / ret #0", "arp and len > 99"]
    pktbpf.replay(pcap([TCP_80, ARP], nano=nano), filters, write=target)
    whole = pcap([TCP_80, ARP], nano=nano)
    record = struct.pack("<IIII", 1001, 1, 20, len(ARP)) + ARP[:20]
    assert target.read_bytes() == whole[:24] + record


def test_damage_gives_everything_before_it_then_raises(tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    damaged = MIXED[:-10]
    with pytest.raises(CaptureError, match="offset") as caught:
        pktbpf.replay([damaged, pcap([ARP])], "tcp or arp", write=target)
    results = caught.value.results
    assert (results.packets, results.accepted) == (5, 4)  # four of the first capture, and the second one
    assert [capture.error is None for capture in results.captures] == [False, True]
    assert target.read_bytes() == pcap([TCP_80, ARP])[: 24 + 16 + len(TCP_80) + 16 + len(ARP)] + written_rest()
    kept = pktbpf.replay([damaged, pcap([ARP])], "tcp or arp", errors="keep")
    assert len(kept.errors) == 1
    with pytest.raises(UsageError, match="neither"):
        pktbpf.replay(MIXED, ALL, errors="ignore")  # type: ignore[arg-type]


def written_rest() -> bytes:
    third = struct.pack("<IIII", 1003, 3, len(ARP), len(ARP)) + ARP
    return third + struct.pack("<IIII", 1000, 0, len(ARP), len(ARP)) + ARP


def test_missing_captures_filters_and_refused_programs(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        pktbpf.replay(tmp_path / "none.pcap", ALL)
    with pytest.raises(UsageError, match="no capture"):
        pktbpf.replay([], ALL)
    with pytest.raises(UsageError, match="no filter"):
        pktbpf.replay(MIXED, [])
    with pytest.raises(ProgramRefused):
        pktbpf.replay(MIXED, "ld M[1] / ret a")
    with pytest.raises(ExpressionError, match="syntax error"):
        pktbpf.replay(MIXED, "tcp prot 80")


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "in.pcap"
    source.write_bytes(MIXED)
    with pytest.raises(UsageError, match="cannot be written at the same time"):
        pktbpf.replay(source, ALL, write=source)
    assert source.read_bytes() == MIXED


def test_batches_are_seen_in_order() -> None:
    seen: list[int] = []
    big = pcap([ARP] * 40_000)
    results = pktbpf.replay(big, "arp", on_batch=lambda _, batch, __: seen.extend([batch.first, len(batch)]))
    assert len(seen) > 2
    firsts, sizes = seen[0::2], seen[1::2]
    assert firsts == np.cumsum([1, *sizes[:-1]]).tolist()
    assert sum(sizes) == results.packets == 40_000


def test_both_engines_agree(root: Path) -> None:
    for path in ("pcaps/web.pcap", "pcaps/vlan.pcap"):
        one, other = (pktbpf.replay(root / path, "filters/tcp-port-80.bpf", engine=name).filters[0]
                      for name in ("interpreter", "reference"))  # fmt: skip
        assert one.verdict is not None
        assert other.verdict is not None
        assert one.verdict.tolist() == other.verdict.tolist()


def test_every_sink_is_closed_whatever_another_one_says() -> None:
    closed = []

    class Sink:
        def __init__(self, name: str, error: Exception | None = None):
            self.name, self.error = name, error

        def begin(self, capture: int, source: object) -> None:
            """Nothing."""

        def take(self, capture: int, batch: object, judged: object) -> None:
            """Nothing."""

        def close(self) -> None:
            closed.append(self.name)
            if self.error is not None:
                raise self.error

    env, socket = Env(), profile("packet")
    full = CaptureError("cannot write: No space left on device")
    sinks = [Sink("first"), Sink("full", full), Sink("last")]
    chosen = [Selection(ALL, engine="interpreter", profile=socket, env=env)]
    session = Session(chosen, profile=socket, env=env, sinks=sinks)
    with pytest.raises(CaptureError, match="No space left"):
        session.run([MIXED])
    assert closed == ["first", "full", "last"]
    assert session.results.packets == 5


def test_expressions_over_stripped_tags() -> None:
    """`vlan` is compiled as a live socket's filter is, so it finds the tag that --strip-vlan took out of the bytes."""
    capture = pcap([VLAN_ARP, ARP, TCP_80])
    stripped = pktbpf.replay(capture, ["vlan", "arp", "vlan and arp"], env=Env(strip_vlan=True))
    assert [one.accepted for one in stripped.filters] == [1, 2, 1]
    plain = pktbpf.replay(capture, ["vlan", "arp", "vlan and arp"])
    assert [one.accepted for one in plain.filters] == [1, 1, 1]


def test_expressions_for_a_raw_ip_socket() -> None:
    results = pktbpf.replay(MIXED, "udp port 53", attach="raw-ip")
    assert (results.accepted, results.filters[0].undelivered) == (1, 2)
    with pytest.raises(UsageError, match="no header that the expression"):
        pktbpf.replay(MIXED, "udp port 53", attach="unix")


def test_the_clock_stands_still_while_link_types_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a link type needs for the first time (compiling an expression, machine code of the view) is no replay."""
    slow: set[object] = set()

    def once(key: object) -> None:
        if key not in slow:
            slow.add(key)
            time.sleep(0.2)

    def slow_view(batch: Batch, *arguments: Any, meta: bool) -> Any:
        once(("view", batch.single_linktype(), meta))
        return view(batch, *arguments, meta=meta)

    def slow_load(source: Any, **options: Any) -> Any:
        once(("load", options["linktype"]))
        return load(source, **options)

    monkeypatch.setattr(session, "view", slow_view)
    monkeypatch.setattr(loader, "load", slow_load)
    captures = [pcap([ARP]), pcap([ARP[14:]], linktype=12), pcapng([(0, ARP), (1, ARP[14:])], [1, 101])]
    begun = time.perf_counter()
    results = pktbpf.replay(captures, "udp or len > 0")
    assert (results.packets, results.linktypes) == (4, [1, 12])
    assert len(slow) >= 4
    assert time.perf_counter() - begun > 0.2 * len(slow)
    assert results.elapsed < 0.2


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        (["arp", "ld M[1] / ret a"], ProgramRefused, r"^ld M\[1\] / ret a: instruction 0: "),
        (["ret #", "arp"], FilterSyntaxError, "^ret #: filter:1:6: "),
        (["arp", "tcp prt 80"], ExpressionError, "^tcp prt 80: can't parse filter expression"),
        (["ld M[1] / ret a"], ProgramRefused, "^instruction 0: "),
        (["arp", "./none.bpf"], FilterSyntaxError, r"^\./none\.bpf: no such file$"),
    ],
)
def test_errors_say_which_of_several_filters(filters: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pktbpf.replay(MIXED, filters)
