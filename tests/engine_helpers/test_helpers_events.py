"""What leaves programs, and what comes in from outside: traces, perf events, timers, samples of user space."""

from __future__ import annotations

import struct

import pytest
from helper_lab import Ours, Spec, assemble
from helper_live import Live

from pktbpf.asm.builder import (
    ADD,
    DW,
    JEQ,
    JNE,
    MUL,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R7,
    R8,
    R9,
    R10,
    W,
    alu64_imm,
    alu64_reg,
    call,
    exit_,
    jmp_imm,
    label,
    ld_func,
    ld_map,
    ld_map_value,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from pktbpf.engine.base import Env
from pktbpf.engine.trace import TraceRecord, line
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import rings, syscall

ENGINES = ("interpreter", "reference")
SECOND = 10**9


def _at(register: int, offset: int) -> list[object]:
    return [mov64_reg(register, R10), alu64_imm(ADD, register, offset)]


@pytest.mark.parametrize("engine", ENGINES)
def test_traces_come_out_in_order_and_as_the_trace_pipe_prints_them(engine: str) -> None:
    text = b"port %d of %s\0"
    specs = {"ro": Spec("ARRAY", 4, 64, 1, entries=[(bytes(4), (text + b"udp\0").ljust(64, b"\0"))])}
    steps = [ld_map_value(R1, "ro"), mov64_imm(R2, len(text)), mov64_imm(R3, -7), ld_map_value(R4, "ro", len(text))]
    steps += [mov64_imm(R5, 0), call("trace_printk"), exit_()]
    side = Ours({"main": assemble(steps, specs)}, specs, engine=engine, env=Env(cpu=1, boot_time=5 * SECOND))
    assert side.filter.run(b"x" * 20, timestamp=7 * SECOND + 1234567) == len("port -7 of udp")
    assert side.filter.run(b"x" * 20, timestamp=8 * SECOND) == len("port -7 of udp")
    records = side.filter.runner.trace_records()
    first = TraceRecord(7 * SECOND + 1234567, 1, b"port -7 of udp")
    assert records == [first, first._replace(time=8 * SECOND)]
    assert side.filter.runner.trace_records() == []
    printed = line(records[0], 5 * SECOND)
    assert printed == "          <idle>-0       [001] ..s2.     2.001234: bpf_trace_printk: port -7 of udp"
    assert line(TraceRecord(0, 1, b"3", lost=True)) == "CPU:1 [LOST 3 EVENTS]"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("flags", "answer", "events"),
    [
        (1, 0, [(1, b"12345678")]),
        (0xFFFFFFFF, 0, [(1, b"12345678")]),
        (0, -95, []),
        (2, -2, []),
        (3 << 32 | 1, 0, [(1, b"12345678abc")]),
        (99 << 32, -14, []),
        (3, -7, []),
        (1 << 60, -22, []),
    ],
)
def test_perf_events(engine: str, flags: int, answer: int, events: list[tuple[int, bytes]]) -> None:
    entries = [(bytes(4), struct.pack("<Q", flags))]
    specs = {"perf": Spec("PERF_EVENT_ARRAY", 4, 4, 3), "flags": Spec("ARRAY", 4, 8, 1, entries=entries)}
    steps = [ld_map_value(R3, "flags"), ldx_mem(DW, R3, R3, 0), st_mem(W, R10, -8, 0x34333231)]
    steps += [st_mem(W, R10, -4, 0x38373635), ld_map(R2, "perf"), *_at(R4, -8), mov64_imm(R5, 8)]
    steps += [call("perf_event_output"), exit_()]
    side = Ours({"main": assemble(steps, specs)}, specs, engine=engine, cpus=2, env=Env(cpu=1))
    assert side.filter.run(b"abcdef", timestamp=5) == answer & 0xFFFFFFFF
    assert side.maps["perf"].events() == [(index, 5, data) for index, data in events]


TIMERS = {"timed": Spec("HASH", 4, 24, 8, special="timer"), "out": Spec("ARRAY", 4, 8, 4)}


def _timer_steps() -> list[object]:
    """Key 1 is inserted with a timer of 1,000 ns; its callback adds 100, notes the time and starts 500 ns more."""
    lookup = [st_mem(W, R10, -4, 1), ld_map(R1, "timed"), *_at(R2, -4), call("map_lookup_elem")]
    steps = [*lookup, jmp_imm(JNE, R0, 0, "have"), st_mem(DW, R10, -32, 5), st_mem(DW, R10, -24, 0)]
    steps.append(st_mem(DW, R10, -16, 0))
    steps += [ld_map(R1, "timed"), *_at(R2, -4), *_at(R3, -32), mov64_imm(R4, 0), call("map_update_elem"), *lookup]
    timer = [mov64_reg(R1, R7), alu64_imm(ADD, R1, 8)]
    steps += [jmp_imm(JEQ, R0, 0, "out"), mov64_reg(R7, R0), *timer, ld_map(R2, "timed"), mov64_imm(R3, 1)]
    steps += [call("timer_init"), *timer, ld_func(R2, "fired"), call("timer_set_callback"), *timer, mov64_imm(R2, 1000)]
    steps += [mov64_imm(R3, 0), call("timer_start"), mov64_imm(R0, -1), exit_()]
    steps += [label("have"), ldx_mem(DW, R0, R0, 0), exit_(), label("out"), mov64_imm(R0, 0), exit_()]
    steps += [label("fired"), mov64_reg(R8, R3), ldx_mem(DW, R1, R3, 0), alu64_imm(ADD, R1, 100)]
    steps += [stx_mem(DW, R3, R1, 0)]
    steps += [call("ktime_get_ns"), mov64_reg(R9, R0), st_mem(W, R10, -4, 2), ld_map(R1, "out"), *_at(R2, -4)]
    steps += [call("map_lookup_elem"), jmp_imm(JEQ, R0, 0, "x"), stx_mem(DW, R0, R9, 0), label("x"), mov64_reg(R1, R8)]
    steps += [alu64_imm(ADD, R1, 8), mov64_imm(R2, 500), mov64_imm(R3, 0), call("timer_start")]
    return [*steps, mov64_imm(R0, 0), exit_()]


@pytest.mark.parametrize("engine", ENGINES)
def test_timers_fire_on_the_clock_of_the_packets(engine: str) -> None:
    side = Ours({"main": assemble(_timer_steps(), TIMERS)}, TIMERS, engine=engine)
    times = (SECOND, SECOND + 500, SECOND + 1000, SECOND + 2400, SECOND + 2500)
    assert [side.filter.run(b"a", timestamp=t) for t in times] == [0xFFFFFFFF, 5, 105, 305, 405]
    assert side.maps["out"][2] == SECOND + 2500
    del side.maps["timed"][1]
    assert side.filter.run(b"a", timestamp=SECOND + 9000) == 0xFFFFFFFF
    assert side.maps["out"][2] == SECOND + 2500


DRAIN = {"user": Spec("USER_RINGBUF", 0, 0, 4096)}
SAMPLES = [(b"one", False), (b"skipped", True), (b"four", False), (b"", False), (b"seven..", False), (b"last", False)]


def _drain_steps(stop: int) -> list[object]:
    """1,000 times the samples plus the sum of their first bytes; the callback stops at one that begins with `stop`."""
    steps = [st_mem(DW, R10, -16, 0), ld_map(R1, "user"), ld_func(R2, "each"), *_at(R3, -16), mov64_imm(R4, 0)]
    steps += [call("user_ringbuf_drain"), alu64_imm(MUL, R0, 1000), ldx_mem(DW, R1, R10, -16), alu64_reg(ADD, R0, R1)]
    steps += [exit_(), label("each"), mov64_reg(R7, R2), mov64_reg(R3, R1), st_mem(DW, R10, -8, 0), *_at(R1, -8)]
    steps += [mov64_imm(R2, 1), mov64_imm(R4, 0), mov64_imm(R5, 0), call("dynptr_read"), ldx_mem(DW, R1, R10, -8)]
    steps += [ldx_mem(DW, R2, R7, 0), alu64_reg(ADD, R2, R1), stx_mem(DW, R7, R2, 0), mov64_imm(R0, 0)]
    return [*steps, jmp_imm(JNE, R1, stop, "go"), mov64_imm(R0, 1), label("go"), exit_()]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("stop", [255, ord("f")])
def test_user_space_samples_are_drained(engine: str, stop: int) -> None:
    side = Ours({"main": assemble(_drain_steps(stop), DRAIN)}, DRAIN, engine=engine)
    for data, discard in SAMPLES:
        side.maps["user"].produce(data, discard=discard)
    got = [side.once(b"x" * 30)[0] for _ in range(2)]
    if stop == 255:
        assert got == [5 * 1000 + sum(d[0] for d, skip in SAMPLES if d and not skip), 0]
    assert got == _live_drain(stop, 2, got)


def _live_drain(stop: int, runs: int, without: list[int]) -> list[int]:
    """What the kernel answers; where it cannot be asked, what is given."""
    try:
        syscall.available()
    except KernelUnavailable:
        return without
    live = Live({"main": assemble(_drain_steps(stop), DRAIN)}, DRAIN)
    rings.produce(live.maps["user"].fd, 4096, SAMPLES)
    got = [live.once(b"x" * 30)[0] for _ in range(runs)]
    live.close()
    return got
