"""The public Filter: verdicts, kept bytes, metadata, bytes in front of byte 0, and what it refuses."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import pktbpf
from pktbpf.abi.context import RANGES
from pktbpf.engine import NAMES, interpreter
from pktbpf.engine.base import Env, Fault

FRAME = bytes(range(12)) + b"\x08\x00\x45" + bytes(60)


def asm(text: str) -> pktbpf.ClassicProgram:
    program = pktbpf.load(text + "\n")
    assert isinstance(program, pktbpf.ClassicProgram)
    return program


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_run_and_kept(engine: str) -> None:
    f = pktbpf.Filter(asm("ldh [12]\njeq #0x800, yes, no\nyes: ret #20\nno: ret #0"), engine=engine)
    assert f.run(FRAME) == 20
    assert f.kept(FRAME) == 20
    assert f.run(bytes(40)) == 0
    assert f.kept(FRAME[:14]) == 14
    many = f.run_many([FRAME, bytes(40)])
    assert many.dtype == np.uint32
    assert many.tolist() == [20, 0]


@pytest.mark.parametrize(
    ("profile", "kept"), [("packet", 3), ("packet-dgram", 3), ("raw-ip", 3), ("unix", 3), ("udp", 8)]
)
def test_trim_floors(engine: str, profile: str, kept: int) -> None:
    assert pktbpf.Filter(asm("ret #3"), engine=engine, attach=profile).kept(FRAME) == kept
    assert pktbpf.Filter(asm("ret #0"), engine=engine, attach=profile).kept(FRAME) == 0


def test_metadata_keywords(engine: str) -> None:
    f = pktbpf.Filter(asm("ld #mark\nret a"), engine=engine)
    assert f.run(FRAME, mark=77) == 77
    assert f.run(FRAME) == 0
    assert pktbpf.Filter(asm("ld #proto\nret a"), engine=engine).run(FRAME) == 0x0800
    assert pktbpf.Filter(asm("ld #vlan_avail\nret a"), engine=engine).run(FRAME, vlan_present=True) == 1
    assert pktbpf.Filter(asm("ld #cpu\nret a"), engine=engine).run(FRAME, cpu=3) == 3
    with pytest.raises(pktbpf.UsageError, match="unknown metadata"):
        f.run(FRAME, makr=1)


def test_no_device_ends_the_filter_with_a(engine: str) -> None:
    for word in ("ifidx", "hatype"):
        f = pktbpf.Filter(asm(f"ld #9\nld #{word}\nret #1"), engine=engine, attach="unix")
        assert f.run(FRAME) == 9
        assert f.run(FRAME, ifindex=2, hatype=1) == 1


def test_bytes_in_front_of_byte_zero(engine: str) -> None:
    link, network = asm("ldb [-2097152]\nret a"), asm("ldb [-1048576]\nret a")
    for program, expected in ((link, FRAME[0]), (network, 0x45)):
        f = pktbpf.Filter(program, engine=engine, attach="packet-dgram")
        assert f.run(FRAME, start=14) == expected
    f = pktbpf.Filter(link, engine=engine, attach="packet-dgram")
    assert f.outcome(FRAME, start=14, mac_offset=None).fault.tolist() == [Fault.NONE]
    assert f.run(FRAME, start=14, mac_offset=None) == 0
    with pytest.raises(pktbpf.UsageError, match="start"):
        f.run(FRAME, start=1000)


def test_bytes_that_were_not_captured(engine: str) -> None:
    f = pktbpf.Filter(asm("ldb [100]\nret #1"), engine=engine)
    assert f.outcome(FRAME, 200).fault.tolist() == [Fault.INDETERMINATE]
    assert f.outcome(FRAME).fault.tolist() == [Fault.NONE]
    assert f.run(FRAME, 200) == f.run(FRAME) == 0
    assert pktbpf.Filter(asm("ld #len\nret a"), engine=engine).run(FRAME, 200) == 200
    with pytest.raises(pktbpf.UsageError, match="wire_len"):
        f.run(FRAME, 3)


def test_random_numbers_follow_the_seed() -> None:
    from pktbpf.engine.base import Env

    def draw(seed: int, engine: str) -> list[int]:
        f = pktbpf.Filter(asm("ld #rand\nret a"), env=Env(seed=seed), engine=engine)
        return [f.run(FRAME) for _ in range(20)]

    assert draw(1, "interpreter") == draw(1, "reference") != draw(2, "interpreter")
    assert len(set(draw(1, "interpreter"))) == 20


def test_what_a_filter_may_be_made_of() -> None:
    assert pktbpf.Filter("filters/tcp-port-80.bpf").run(bytes(60)) == 0
    assert pktbpf.Filter(pktbpf.verify(asm("ret #5"))).run(b"") == 5
    with pytest.raises(pktbpf.ProgramRefused) as caught:
        pktbpf.Filter(asm("ld #1"))
    assert (caught.value.errno, caught.value.insn) == (22, 0)
    with pytest.raises(pktbpf.UsageError, match="attach profile"):
        pktbpf.Filter(asm("ret #5"), attach="tcp")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("protocol", 65536), ("pkt_type", 8), ("pkt_type", -1), ("mark", 1 << 32), ("mark", -1), ("vlan_tci", 1 << 16),
        ("queue_mapping", 1 << 16), ("mac_offset", 1 << 31), ("timestamp", 1 << 63), ("hash", 1.5), ("ifindex", "1"),
    ],
)  # fmt: skip
def test_metadata_that_no_packet_has(column: str, value: Any) -> None:
    with pytest.raises(pktbpf.UsageError, match=f"^metadata {column}"):
        pktbpf.Filter(asm("ret #1")).run(FRAME, **{column: value})
    with pytest.raises(pktbpf.UsageError, match=f"^metadata {column}"):
        pktbpf.Filter(asm("ret #1"), env=Env(metadata={column: value})).run(FRAME)


def test_metadata_at_the_ends_of_its_range() -> None:
    last = {name: high for name, (_, high) in RANGES.items()}
    assert pktbpf.Filter(asm("ld mark\nret a")).run(FRAME, **last) == 0xFFFFFFFF
    assert pktbpf.Filter(asm("ld #type\nret a")).run(FRAME, pkt_type=np.int64(7)) == 7
    assert pktbpf.Filter(asm("ret #3")).run(FRAME, **dict.fromkeys(RANGES)) == 3


def test_threads_share_a_filter_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ".map seen ARRAY key_size=4 value_size=8 max_entries=1\n*(u32 *)(r10 -4) = 0\nr6 = r1\nr1 = map[seen] ll\n"
    text += "r2 = r10\nr2 += -4\ncall bpf_map_lookup_elem#1\nif r0 == 0 goto +2\nr1 = 1\n"
    text += "lock *(u64 *)(r0 +0) += r1\nr0 = *(u32 *)(r6 +0)\nexit\n"
    shared = pktbpf.Filter(pktbpf.load(text, form="extended"))
    packets = [bytes(60 + number % 5) for number in range(200)]
    within, most = 0, 0
    inner = interpreter.run_batch

    def counted(*arguments: Any) -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        time.sleep(0.001)  # lets the other threads in, if anything does
        inner(*arguments)
        within -= 1

    monkeypatch.setattr(interpreter, "run_batch", counted)
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(shared.run, packets))
    assert verdicts == [len(packet) for packet in packets]
    assert shared.maps["seen"][0] == len(packets)
    assert most == 1
