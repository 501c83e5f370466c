"""What programs hand out, beside a live consumer: perf events, ring buffer records, lines of the trace pipe; timers.

The kernel's side has real readers: events on every processor with mapped rings, mapped ring buffer pages, a trace
instance. Both engines must hand out the same bytes, with the same answers, in the same order. Timers of ours are told
that they have expired; those of the kernel are waited for, however long they take.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from helper_compare import trim
from helper_generate import Generator
from helper_lab import ETHERNET, Ours, Spec, assemble, one_processor, possible_cpus
from helper_live import Live, Shelf, create
from helper_pieces import SPECS
from trace_pipe import TracePipe

from pktbpf.asm.builder import (
    ADD,
    AND,
    DW,
    JEQ,
    JNE,
    JSGT,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R10,
    B,
    alu64_imm,
    call,
    exit_,
    jmp_imm,
    label,
    ld_abs,
    ld_func,
    ld_imm64,
    ld_map,
    ld_map_value,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)  # fmt: skip
from pktbpf.engine.trace import line
from pktbpf.errors import KernelUnavailable
from pktbpf.kernel import syscall

ENGINES = ("interpreter", "reference")
CURRENT = 0xFFFFFFFF
PACKET = bytes(range(1, 65))


@pytest.fixture(scope="module")
def shelf() -> Iterator[Shelf]:
    try:
        syscall.available()
        made = Shelf()
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    with closing(made):
        try:
            made.map("perf", SPECS["perf"], SPECS)
        except KernelUnavailable as why:
            pytest.skip(f"the live kernel cannot be asked: {why}")
        yield made


@pytest.fixture
def cpu() -> Iterator[int]:
    with one_processor() as number:
        yield number


# ---- perf events

DATA = bytes(range(100, 164))
PERF = {
    "perf": Spec("PERF_EVENT_ARRAY", 4, 4, 8),
    "data": Spec("ARRAY", 4, 64, 1, entries=[(bytes(4), DATA)]),
}  # fmt: skip


def output(flags: int, size: int) -> list[Any]:
    """bpf_perf_event_output of bytes of `data`."""
    steps = [ld_map(R2, "perf"), ld_imm64(R3, flags), ld_map_value(R4, "data"), mov64_imm(R5, size)]
    return [*steps, call("perf_event_output"), exit_()]


PERF_CASES = [
    *((CURRENT, size) for size in (0, 1, 3, 4, 5, 8, 12, 13, 63, 64)),
    *((CURRENT | extra << 32, size) for extra in (1, 4, 7, 63, 64, 65, 0xFFFFF) for size in (0, 1, 8)),
    *((index, 8) for index in (0, 1, 2, 7, 8, 9, 0xFFFFFFFE)),
    *((bad | extra << 32, 8) for bad in (1 << 52, 1 << 63) for extra in (0, 65)),
    (8 | 65 << 32, 8), (8 | 1 << 52, 8),
]  # fmt: skip


@pytest.mark.kernel
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("flags", "size"), PERF_CASES)
def test_perf_events_are_those_that_a_reader_gets(shelf: Shelf, cpu: int, engine: str, flags: int, size: int) -> None:
    programs = {"main": assemble(output(flags, size), PERF)}
    ours = Ours(programs, PERF, cpu, engine, possible_cpus())
    with closing(Live(programs, PERF, shelf)) as live:
        assert ours.once(PACKET) == live.once(PACKET)
        want, got = live.contents(), ours.contents()
    assert all((4 + len(data)) % 8 == 0 for _, data in want["perf"])
    trim(want, got, PERF)
    assert got == want
    if flags & CURRENT == CURRENT and flags >> 32 <= 64:
        assert got["perf"] == [(cpu, DATA[:size] + PACKET[: flags >> 32])]


@pytest.mark.kernel
def test_without_a_reader_the_kernel_finds_no_event(shelf: Shelf, cpu: int) -> None:
    """Ours always has one: that is the difference between the two."""
    program = assemble([*output(CURRENT, 8)], PERF)
    with closing(Live({"main": program}, PERF, shelf)) as live, create("perf", PERF["perf"], shelf.types) as empty:
        fd = live.load(program, {**live.maps, "perf": empty})
        try:
            assert syscall.run_once(fd, bytes(60))[0] == -2 & 0xFFFFFFFF
        finally:
            os.close(fd)


# ---- ring buffers

RING = {"ring": Spec("RINGBUF", 0, 0, 4096)}
RESERVED = (24, 1000, 2000)


def ring_program() -> list[Any]:
    """The packet's first byte says what to do, the second with which flags or what to ask; the answer comes back."""
    steps = [mov64_reg(R6, R1), ld_abs(B, 0), mov64_reg(R7, R0), ld_abs(B, 1), mov64_reg(R8, R0)]
    steps += [st_mem(DW, R10, -16, 0x01020304), stx_mem(DW, R10, R7, -8), ld_map(R1, "ring")]
    steps += [jmp_imm(JNE, R7, 0, "query"), mov64_reg(R2, R10), alu64_imm(ADD, R2, -16), mov64_imm(R3, 13)]
    steps += [mov64_reg(R4, R8), call("ringbuf_output"), exit_()]
    steps += [label("query"), jmp_imm(JNE, R7, 1, "record0"), mov64_reg(R2, R8), call("ringbuf_query"), exit_()]
    for number, size in enumerate(RESERVED):
        # 2, 3, 4: submit; 5, 6, 7: discard
        following = f"record{number + 1}"
        steps += [label(f"record{number}"), jmp_imm(JEQ, R7, 2 + number, f"do{number}")]
        steps += [jmp_imm(JNE, R7, 5 + number, following), label(f"do{number}"), ld_map(R1, "ring")]
        steps += [mov64_imm(R2, size), mov64_imm(R3, 0), call("ringbuf_reserve"), jmp_imm(JEQ, R0, 0, "full")]
        steps += [stx_mem(DW, R0, R7, 0), stx_mem(DW, R0, R8, 8), mov64_reg(R1, R0), mov64_reg(R2, R8)]
        steps += [alu64_imm(AND, R2, 3), jmp_imm(JSGT, R7, 4, f"discard{number}"), call("ringbuf_submit")]
        steps += [mov64_imm(R0, 1), exit_(), label(f"discard{number}"), call("ringbuf_discard"), mov64_imm(R0, 2)]
        steps.append(exit_())
    return [*steps, label(f"record{len(RESERVED)}"), label("full"), mov64_imm(R0, 0), exit_()]


@pytest.mark.kernel
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(6))
def test_ring_buffers_beside_a_reader_that_comes_and_goes(shelf: Shelf, cpu: int, engine: str, seed: int) -> None:
    chance = random.Random(seed)
    programs = {"main": assemble(ring_program(), RING)}
    ours = Ours(programs, RING, cpu, engine)
    handed_out = 0
    with closing(Live(programs, RING, shelf)) as live:
        for step in range(400):
            do = chance.choice((0, 0, 0, 2, 2, 3, 4, 5, 6, 7))
            flags = chance.choice((0, 1, 2, 3, 0, 4, 64))
            for packet in (bytes((do, flags, step & 255)), *(bytes((1, what)) for what in range(5))):
                frame = packet + bytes(30)
                assert ours.once(frame) == live.once(frame), f"seed {seed}, step {step}: {packet.hex()}"
            if chance.random() < 0.1:
                want, got = live.contents()["ring"], ours.contents()["ring"]
                assert got == want, f"seed {seed}, step {step}"
                handed_out += len(want)
    assert handed_out > 50


# ---- the trace pipe

_LINE = re.compile(
    r"(?P<comm>.{16})-(?P<pid>\d+) +\[(?P<cpu>\d+)\] (?P<flags>\S+) +(?P<seconds>\d+)\.(?P<micros>\d{6}): "
    r"bpf_trace_printk: "
)
_HASHED = re.compile(r"\b0{8}[0-9a-f]{8}$", re.MULTILINE)  # %p: with a key that every boot makes anew


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracePipe]:
    try:
        with TracePipe(tmp_path_factory.mktemp("tracefs")) as opened:
            yield opened
    except KernelUnavailable as why:
        pytest.skip(f"no trace pipe: {why}")


def traced(seed: int) -> tuple[dict[str, Any], dict[str, Spec]]:
    """A program of nothing but trace calls, with every format in turn."""
    source = Generator(seed)
    pieces = [step for _ in range(4) for step in source.random.choice((source.trace, source.print))()]
    start = [mov64_reg(R6, R1), mov64_imm(R7, source.number()), mov64_imm(R8, source.number()), *source.restore()]
    specs = {"ro": SPECS["ro"]}
    return {"main": assemble([*start, *pieces, mov64_reg(R0, R7), exit_()], specs)}, specs


@pytest.mark.kernel
@pytest.mark.parametrize("engine", ENGINES)
def test_lines_are_those_of_the_trace_pipe(
    shelf: Shelf, cpu: int, pipe: TracePipe, engine: str
) -> None:
    printed = 0
    for seed in range(400):
        programs, specs = traced(seed)
        ours = Ours(programs, specs, cpu, engine)
        with closing(Live(programs, specs, shelf)) as live:
            assert ours.once(PACKET) == live.once(PACKET), f"seed {seed}"
            got, want = ours.filter.runner.trace_records(), pipe.text()
        heads = list(_LINE.finditer(want))
        assert len(heads) == len(got), f"seed {seed}: {want!r} {got}"
        shown = ""
        for head, record in zip(heads, got, strict=True):
            moment = int(head["seconds"]) * 10**9 + int(head["micros"]) * 1000
            assert record.cpu == int(head["cpu"]) == cpu
            task = {"comm": head["comm"].lstrip(), "pid": int(head["pid"]), "flags": head["flags"]}
            shown += line(record._replace(time=moment), 0, **task) + "\n"
        assert _HASHED.sub("hashed", shown) == _HASHED.sub("hashed", want), f"seed {seed}"
        printed += len(got)
    assert printed > 500


# ---- timers

TIMED = {"timed": Spec("HASH", 4, 24, 3, special="timer")}
INSERT, INIT, CALLBACK, SHORT, LONG, CANCEL, DELETE, READ = range(8)
PAUSE, HOURS = 20_000_000, 1 << 46  # nanoseconds: between two packets of ours; a timer that does not fire here
PATIENCE = 30.0  # seconds for the kernel's timers to have fired; they take milliseconds


def timer_program() -> list[Any]:
    """The packet's first byte says what to do, the second with which key; the answer comes back. A callback adds 1 to
    its value and starts again after a millisecond until there are 3 more."""
    steps = [mov64_reg(R6, R1), ld_abs(B, 0), mov64_reg(R7, R0), ld_abs(B, 1), stx_mem(DW, R10, R0, -8)]
    steps += [st_mem(DW, R10, at, 0) for at in (-32, -24, -16)]
    steps += [jmp_imm(JNE, R7, INSERT, "find"), ld_map(R1, "timed"), *_at(R2, -8), *_at(R3, -32), mov64_imm(R4, 1)]
    steps += [call("map_update_elem"), exit_()]
    steps += [label("find"), jmp_imm(JNE, R7, DELETE, "value"), ld_map(R1, "timed"), *_at(R2, -8)]
    steps += [call("map_delete_elem"), exit_(), label("value"), ld_map(R1, "timed"), *_at(R2, -8)]
    steps += [call("map_lookup_elem"), jmp_imm(JNE, R0, 0, "there"), mov64_imm(R0, 99), exit_()]
    steps += [label("there"), mov64_reg(R8, R0), mov64_reg(R1, R8), alu64_imm(ADD, R1, 8)]
    steps += [jmp_imm(JNE, R7, INIT, "callback"), ld_map(R2, "timed"), mov64_imm(R3, 1), call("timer_init"), exit_()]
    steps += [label("callback"), jmp_imm(JNE, R7, CALLBACK, "start"), ld_func(R2, "fired")]
    steps += [call("timer_set_callback"), exit_(), label("start"), ld_imm64(R2, 1_000_000), mov64_imm(R3, 0)]
    steps += [jmp_imm(JEQ, R7, SHORT, "go"), jmp_imm(JNE, R7, LONG, "cancel"), ld_imm64(R2, HOURS), label("go")]
    steps += [call("timer_start"), exit_(), label("cancel"), jmp_imm(JNE, R7, CANCEL, "read"), call("timer_cancel")]
    steps += [exit_(), label("read"), ldx_mem(DW, R0, R8, 0), exit_()]
    steps += [label("fired"), ldx_mem(DW, R2, R3, 0), alu64_imm(ADD, R2, 1), stx_mem(DW, R3, R2, 0)]
    steps += [alu64_imm(AND, R2, 3), jmp_imm(JEQ, R2, 0, "last"), mov64_reg(R1, R3), alu64_imm(ADD, R1, 8)]
    steps += [mov64_imm(R2, 1_000_000), mov64_imm(R3, 0), call("timer_start"), label("last"), mov64_imm(R0, 0), exit_()]
    return steps


def _at(register: int, offset: int) -> list[Any]:
    return [mov64_reg(register, R10), alu64_imm(ADD, register, offset)]


@pytest.mark.kernel
@pytest.mark.parametrize("seed", range(3))
def test_timers_beside_those_of_the_kernel(shelf: Shelf, cpu: int, seed: int) -> None:
    """After each packet the kernel gets the time that it needs: its timers have fired once its values are ours."""
    chance = random.Random(seed)
    programs = {"main": assemble(timer_program(), TIMED)}
    sides = [Ours(programs, TIMED, cpu, engine) for engine in ENGINES]
    fired = 0
    wanted = [INSERT, INIT, CALLBACK, SHORT, READ, SHORT, CANCEL, READ]
    wanted += chance.choices(range(8), weights=(3, 3, 3, 4, 1, 1, 1, 3), k=50)
    with closing(Live(programs, TIMED, shelf)) as live:
        for step, do in enumerate(wanted):
            frame, moment = bytes((do, chance.randrange(3) if step >= 8 else 0)) + bytes(30), 10**18 + step * PAUSE
            where = f"seed {seed}, step {step}: {frame[:2].hex()}"
            answer, _ = live.once(frame)
            assert [answer_at(side, frame, moment) for side in sides] == [answer, answer], where
            fired += do == READ and answer not in (0, 99)
            for side in sides:  # a packet that changes nothing, by which timers have fired
                answer_at(side, bytes((READ, 0)) + bytes(30), moment + PAUSE - 1)
            settled(live, sides[0].contents(), where)
            assert sides[1].contents() == sides[0].contents(), where
        time.sleep(0.01)
        settled(live, sides[0].contents(), f"seed {seed}: a timer has fired too often")
    assert fired > 3


def answer_at(side: Ours, frame: bytes, moment: int) -> int:
    """What our program returns for a frame at a time in nanoseconds."""
    got = side.filter.outcome(ETHERNET + frame, start=14, mac_offset=-14, timestamp=moment)
    return int(got.verdict[0])


def settled(live: Live, want: dict[str, Any], where: str) -> None:
    """Wait until the kernel's maps hold what ours do."""
    deadline = time.monotonic() + PATIENCE
    while (got := live.contents()) != want:
        assert time.monotonic() < deadline, f"{where}: kernel {got}, pktbpf {want}"
        time.sleep(0.0005)
