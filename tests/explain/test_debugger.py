"""The step debugger, driven by text: as tests, as a script on standard input, and through the command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pktbpf.cli import cli
from pktbpf.errors import UsageError
from pktbpf.explain.conditions import Condition
from pktbpf.explain.debugger import Debugger
from pktbpf.explain.run import Tracer, trace_filter
from pktbpf.filter import Filter
from pktbpf.testing import PacketBuilder

ROOT = Path(__file__).parents[2]


def debugger(capture: str = "web.pcap", program: str = "filters/tcp-port-80.bpf") -> Debugger:
    path = str(ROOT / program) if "/" in program else program
    return Debugger(lambda: Tracer(str(ROOT / "pcaps" / capture), path))


def test_step_and_back() -> None:
    one = debugger()
    assert one.execute("step") == ["error: no packet yet; say `packet N` or `next`"]
    assert one.execute("packet 25")[1].split()[:2] == ["0", "ldh"]
    assert "ether.type = 0x0800; A = 0x800" in one.execute("step")[0]
    assert one.prompt == "(25:1) "
    one.execute("step 4")
    assert one.position == 5
    assert one.execute("back 2") == ["   7 ldb [23]"]
    assert one.execute("regs")[0] == "A     0x0000000000000800  0x800"
    assert one.execute("back 99") == one.execute("start")
    assert one.execute("run")[-1].startswith("end: accepted")
    assert one.execute("step")[-1].startswith("end: accepted")
    assert one.execute("back")[0].split()[:2] == ["14", "ret"]


def test_breakpoints() -> None:
    one = debugger()
    one.execute("packet 25")
    assert one.execute("break 8") == ["breakpoint 1: instruction 8"]
    assert one.execute("b tcp.dstport == 80 and A == 80") == ["breakpoint 2: if tcp.dstport == 80 and A == 80"]
    assert one.execute("break 13 if A > 0x5000") == ["breakpoint 3: instruction 13 if A > 0x5000"]
    assert one.execute("run") == ["breakpoint 1: instruction 8", "   8 jeq #0x6 jt 9 jf 15"]
    assert one.execute("c")[0] == "breakpoint 2: if tcp.dstport == 80 and A == 80"
    assert one.execute("run")[0].startswith("breakpoint 2")
    assert one.execute("run")[0].startswith("end")
    assert one.execute("delete 2") == []
    assert len(one.execute("break")) == 2
    assert one.execute("delete 7") == ["error: there is no breakpoint 7"]
    one.execute("delete")
    assert one.execute("break") == ["no breakpoints"]
    assert any(line.startswith(">") and "ret #262144" in line for line in one.execute("back") and one.execute("list"))


def test_until_and_packets() -> None:
    one = debugger()
    one.execute("packet 1")
    assert one.execute("next accepted")[0].startswith("packet 25,")
    assert one.execute("until 13") == ["  13 jeq #0x50 jt 14 jf 15"]
    assert one.execute("until 2")[0] == "instruction 2 is not reached"
    assert one.execute("next rejected")[0].startswith("packet 26, 74 bytes: rejected because tcp.dstport = 35128")
    found = one.execute("next 3 true")
    assert found[1] == "   3 jeq #0x6 jt 4 jf 15"
    assert one.position > 0
    assert one.execute("packet 2")[0].startswith("packet 2,")
    assert one.execute("packet 4000") == ["error: there is no packet 4000"]
    assert "0000" in one.execute("packet")[-1] or one.execute("packet")[0].startswith("packet")


def test_maps_and_stack_follow_the_position() -> None:
    one = debugger("dns.pcap", "filters/ebpf/proto_counts.o")
    one.execute("packet 5")
    assert "  17 = 2" in one.execute("maps")
    one.execute("run")
    assert "  17 = 3" in one.execute("maps counts")
    one.execute("back 3")
    assert "  17 = 2" in one.execute("maps counts")
    assert one.execute("stack") == ["fp-8    00 00 00 11 11 00 00 00"]
    assert "counts+136" in one.execute("regs")[0]
    one.execute("next")
    assert "  17 = 3" in one.execute("maps")
    assert one.execute("maps nothing")[0].startswith("error: there is no map 'nothing'")
    one.execute("packet 1")
    assert "all zero" in one.execute("maps")[0]


def test_scratch_slots_are_the_stack_of_a_classic_program() -> None:
    one = debugger(program="ldh [12]\nst M[3]\nld M[3]\nret a")
    one.execute("packet 3")
    one.execute("run")
    assert one.execute("stack") == ["M[3]  0x00000800  2048"]


def test_unknown_words() -> None:
    one = debugger()
    one.execute("packet 1")
    assert one.execute("frobnicate")[0].startswith("error: unknown command 'frobnicate'; there are step, back")
    assert one.execute("st")[0].startswith("error: ambiguous command 'st'")
    assert one.execute("") == one.execute("# a remark") == []
    assert {line.split()[0] for line in one.execute("help")} >= {"step", "back", "run", "break", "maps", "quit"}
    one.execute("quit")
    assert one.done


@pytest.mark.parametrize(
    "text", ["__import__('os')", "A.__class__ + 'x'", "lambda: 1", "A := 3", "[1]", "1 / 0", "(", ""]
)
def test_conditions_are_nothing_but_conditions(text: str) -> None:
    with pytest.raises(UsageError):
        Condition(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [("A == 0", True), ("x != 0 or not len < 9", True), ("1 < ip.ttl <= 64", True), ("ip.proto + 1 == 7", True),
     ("udp.dstport == 9", False), ("-1 < pc", True), ("tcp.syn == 1", True), ("step == 1 and caplen & 1", False)],
)  # fmt: skip
def test_condition_values(text: str, holds: bool) -> None:
    trace = trace_filter(Filter("tcp"), PacketBuilder().tcp())
    assert Condition(text).holds(trace, trace.steps[0]) is holds


def test_commands_on_standard_input() -> None:
    script = "break ip.proto == 6\nrun\nregs\nwhy\nquit\nstep\n"
    arguments = ["debug", "pcaps/web.pcap", "--filter", "filters/tcp-port-80.bpf", "--packet", "25"]
    done = CliRunner().invoke(cli, arguments, input=script)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith("packet 25, 74 bytes: accepted because")
    assert "breakpoint 1: if ip.proto == 6" in lines
    assert lines[-1] == "accepted because ether.type = 0x0800, ip.proto = 6, tcp.dstport = 80"


def test_a_missing_packet_ends_the_command() -> None:
    done = CliRunner().invoke(cli, ["debug", "pcaps/arp.pcap", "-F", "arp", "-n", "999"], input="step\n")
    assert done.exit_code == 2
    assert "pcaps/arp.pcap: there is no packet 999" in done.output


@pytest.mark.parametrize(
    ("program", "command", "said"),
    [
        ("filters/tcp-port-80.bpf", "break 16", "there is no instruction 16; the program has 0 to 15, see `list all`"),
        ("filters/tcp-port-80.bpf", "break 0", "instruction 0 is where every packet begins and never comes again"),
        ("filters/tcp-port-80.bpf", "break -1", "there is no instruction -1; the program has 0 to 15, see `list all`"),
        ("filters/tcp-port-80.bpf", "break 0x20 if A > 1", "there is no instruction 32; the program has 0 to 15"),
        ("filters/tcp-port-80.bpf", "until 99", "there is no instruction 99; the program has 0 to 15"),
        ("filters/tcp-port-80.bpf", "break 1 == 2", "'1 == 2' is the same at every step: there is no register"),
        ("filters/tcp-port-80.bpf", "next 2 true", "instruction 2 is no conditional jump"),
        ("ja end\nld #1\nend: ret #0", "break 1", "instruction 1 is never reached: no way from the start"),
        ("r1 = 5 ll\nr0 = 0\nexit", "break 1", "instruction 1 is the second half of the 64-bit immediate at 0; say 0"),
        ("r0 = 0\nexit", "break 2", "there is no instruction 2; the program has 0 to 1"),
    ],
)
def test_a_breakpoint_that_never_fires_is_refused_in_a_line(program: str, command: str, said: str) -> None:
    one = debugger(program=program)
    one.execute("packet 1")
    lines = one.execute(command)
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {said}")
    assert (one.breakpoints, one.position) == ([], 0)


def test_breakpoints_in_functions_are_reached() -> None:
    one = debugger(program="call pc+1\nexit\nr0 = 7\nexit")
    one.execute("packet 1")
    assert one.execute("break 0x2") == ["breakpoint 1: instruction 2"]
    assert one.execute("run")[0] == "breakpoint 1: instruction 2"


def test_the_first_instruction_may_be_that_of_a_loop() -> None:
    one = debugger(program="r0 = *(u32 *)(r1 +0)\nr1 = r1\nif r0 == 0 goto pc-3\nexit")
    one.execute("packet 1")
    assert one.execute("break 0") == ["breakpoint 1: instruction 0"]
