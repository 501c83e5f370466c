"""`compile`: link types, errors in libpcap's words, the choice of the library, threads, no leak, no hang."""

import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pktbpf
from pktbpf import expression
from pktbpf.asm import listing
from pktbpf.errors import ExpressionError, LinkTypeError
from pktbpf.expression import compiler, library
from pktbpf.expression.library import Request
from pktbpf.isa.classic import ClassicInsn


def test_the_public_name() -> None:
    assert pktbpf.compile is expression.compile
    program = pktbpf.compile("tcp port 80")
    assert program.origin == "tcp port 80"
    assert program.linktype == 1
    assert program.libpcap == expression.backend()[1]
    assert re.match(r"libpcap version \d+\.\d+", program.libpcap)
    assert program.insns[-1] == (6, 0, 0, 0)
    assert program.insns[-2] == (6, 0, 0, 262144)


@pytest.mark.parametrize(
    ("linktype", "number"),
    [
        ("EN10MB", 1),
        ("en10mb", 1),
        ("DLT_EN10MB", 1),
        ("1", 1),
        (1, 1),
        ("RAW", 12),
        (101, 12),
        ("LINKTYPE_RAW", 12),
        ("LINUX_SLL", 113),
        ("IEEE802_11_RADIO", 127),
        (276, 276),
        ("NULL", 0),
    ],
)
def test_link_types(linktype: str | int, number: int) -> None:
    assert pktbpf.compile("ip", linktype).linktype == number


@pytest.mark.parametrize("linktype", ["XYZ", "", "DLT_", "EN10MB\0", "é", -1, 1 << 40])
def test_unknown_link_types(linktype: str | int) -> None:
    with pytest.raises(LinkTypeError):
        pktbpf.compile("ip", linktype)


def test_number_that_is_no_link_type() -> None:
    with pytest.raises(ExpressionError, match="unknown data link type 9999"):
        pktbpf.compile("tcp", 9999)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp prt", "can't parse filter expression: syntax error"),
        ("ip and ip6", "expression rejects all packets"),
        ("port 70000", "illegal port number 70000 > 65535"),
        ("ip[0:3] = 1", "data size must be 1, 2, or 4"),
        ("a\0b", "the expression contains a NUL character"),
        ("\ud800", "the expression is not text that could be encoded"),
        ("x" * (1 << 21), "the expression is longer than 1048576 bytes"),
    ],
)
def test_errors_are_libpcaps_own(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        pktbpf.compile(text)
    assert str(caught.value) == message


def test_contradiction_is_an_error_only_when_optimising() -> None:
    assert len(pktbpf.compile("ip and ip6", optimize=False)) > 1


def test_snaplen_and_empty_expression() -> None:
    assert pktbpf.compile("", snaplen=100).insns == (ClassicInsn(6, 0, 0, 100),)
    assert pktbpf.compile("", snaplen=0).insns == (ClassicInsn(6, 0, 0, 262144),)
    with pytest.raises(ExpressionError, match="out of range"):
        pktbpf.compile("", snaplen=-1)


def test_netmask() -> None:
    programs = {pktbpf.compile("ip broadcast", netmask=mask) for mask in (24, "24", "255.255.255.0", 0xFFFFFF00)}
    (program,) = programs
    assert "and      #0xff\n" in listing.to_d(program)
    for wrong in ("255.255", "33", "x", -1):
        with pytest.raises(ExpressionError, match="netmask"):
            pktbpf.compile("ip broadcast", netmask=wrong)


def test_comments_in_files_as_tcpdump_has_them() -> None:
    assert expression.strip_comments("# a\ntcp # b\n port 80\n") == "tcp \n port 80"


def test_the_wheels_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PKTBPF_LIBPCAP", "wheel")
    name, version = expression.backend()
    assert name == "wheel"
    program = pktbpf.compile("tcp dst port 80")
    assert program.libpcap == version
    assert program.insns[0] == (0x28, 0, 0, 12)
    assert program.insns[-1] == (6, 0, 0, 0)
    with pytest.raises(ExpressionError, match="syntax error"):
        pktbpf.compile("tcp prt 80")


def test_a_named_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundled = next(iter(library._bundled()))
    monkeypatch.setenv("PKTBPF_LIBPCAP", str(bundled))
    assert expression.backend()[0] == str(bundled)
    nothing = tmp_path / "libnothing.so"
    nothing.write_bytes(b"no library")
    monkeypatch.setenv("PKTBPF_LIBPCAP", str(nothing))
    with pytest.raises(ExpressionError, match="not a libpcap that can be loaded"):
        pktbpf.compile("tcp")


def test_the_wheel_is_what_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_system", lambda: None)
    assert library.find("").name == "wheel"
    with pytest.raises(ExpressionError, match="this system has no libpcap"):
        library.find("system")
    monkeypatch.setattr(library, "_wheel", lambda: None)
    with pytest.raises(ExpressionError, match=r"install the system's libpcap or the pcapy-ng wheel"):
        library.find("")


def test_the_wheels_module_where_its_library_is_inside() -> None:
    module = pytest.importorskip("pcapy")
    backend = library.WheelModule(module)
    bundled = library._wheel()
    assert bundled is not None
    request = Request(b"tcp port 80", 1, 262144, True, 0)
    assert backend.compile(request) == bundled.compile(request)
    assert backend.linktype("EN10MB") == 1
    assert backend.linktype("no such") is None
    with pytest.raises(ExpressionError, match="syntax error"):
        backend.compile(request._replace(expression=b"tcp prt"))


def test_threads() -> None:
    expected = {f"tcp port {n}": pktbpf.compile(f"tcp port {n}").insns for n in range(1, 9)}
    wrong: list[str] = []

    def work(text: str) -> None:
        wrong.extend(text for _ in range(30) if pktbpf.compile(text).insns != expected[text])

    threads = [threading.Thread(target=work, args=(text,)) for text in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_leak() -> None:
    """A leaked program or handle would cost 160 bytes or 4 kB a call."""

    def work(count: int) -> None:
        for number in range(count):
            pktbpf.compile("tcp port 80")
            if number % 4 == 0:
                with pytest.raises(ExpressionError):
                    pktbpf.compile("tcp prt")

    work(500)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(3000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4000


def test_a_slow_lookup_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Slow:
        name = version = "slow"

        def compile(self, request: Request) -> tuple[ClassicInsn, ...]:
            released.wait(20)
            return ()

        def linktype(self, name: str) -> int | None:
            return 1

    monkeypatch.setattr(compiler, "_library", Slow)
    started = time.monotonic()
    with pytest.raises(ExpressionError, match=r"no answer from libpcap within 0\.2 s"):
        pktbpf.compile("host slow.example", timeout=0.2)
    assert time.monotonic() - started < 5
    released.set()


def test_unknown_host_name() -> None:
    """The reserved domain never resolves; the words are libpcap's."""
    with pytest.raises(ExpressionError, match=r"unknown host|no answer"):
        pktbpf.compile("host nosuch.invalid", timeout=10)


def test_light_import() -> None:
    code = "import sys, pktbpf.expression; print([m for m in ('numpy', 'numba', 'scapy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("choice", ["system", "wheel"])
def test_vlan_as_a_live_socket_has_it(choice: str) -> None:
    """The tag is looked for in the metadata first; everything else is compiled as ever."""
    try:
        backend = library.find(choice)
    except ExpressionError as missing:
        pytest.skip(str(missing))
    loads = {insn.k for insn in backend.compile(Request(b"vlan 10", 1, 262144, True, 0, live=True))}
    assert {0xFFFFF02C, 0xFFFFF030} <= loads  # vlan_tci, vlan_avail
    for text in (b"vlan 10", b"tcp port 80"):
        plain = backend.compile(Request(text, 1, 262144, True, 0))
        assert not any(insn.k >= 0xFFFFF000 for insn in plain)
        assert (plain == backend.compile(Request(text, 1, 262144, True, 0, live=True))) is (text == b"tcp port 80")


@pytest.mark.kernel
@pytest.mark.parametrize("text", ["vlan", "vlan 10 and ip", "vlan and vlan 6", "tcp port 80 or vlan 5"])
def test_live_compilation_is_tcpdumps(text: str) -> None:
    """`tcpdump -i lo -d`, which opens the device and so needs the right to."""
    if shutil.which("tcpdump") is None:
        pytest.skip("no tcpdump")
    done = subprocess.run(["tcpdump", "-i", "lo", "-d", text], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"tcpdump cannot open lo: {done.stderr.splitlines()[-1]}")
    ours = listing.to_d(expression.compile(text, live=True))
    assert [line.split() for line in ours.splitlines()] == [line.split() for line in done.stdout.splitlines()]
