"""Every form recognised from path, text and bytes; nothing misread; damaged filters give only errors of the family."""

import importlib
import io
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pktbpf
from pktbpf import loader
from pktbpf.asm import classic_dis, listing
from pktbpf.asm.classic_text import assemble
from pktbpf.errors import ExpressionError, FilterSyntaxError, ObjectError, PktbpfError, UsageError
from pktbpf.program import ClassicProgram, Program

CLASSIC = assemble("ldh [12]\njeq #0x800 jt 2 jf 3\nret #262144\nret #0")
EXTENDED = "r0 = *(u32 *)(r1 + 0)\nif r0 > 9 goto out\nr0 = -1\nout:\nexit\n"
EXTENDED_RAW = bytes.fromhex("b7000000010000009500000000000000")

TEXTS = {
    "asm": [
        classic_dis.disassemble(CLASSIC),
        listing.to_d(CLASSIC),
        listing.to_d(CLASSIC).replace("\n", " / "),
        "ldh [12]\njneq #0x800, drop\nret #262144\ndrop: ret #0",
        "; comment\n# other\n/* ldx */ // c\n\n  start: ldh [12]\n",
        "l0:\tldh [12]\nl1:\tret a\n",
        "ret #0",
        "LDH [12]\nRET A",
        "lhd [12]\nret #0\n",
        ".insn 0x06, 0, 0, 0",
        "\ufeffret #0",
    ],
    "c": [
        listing.to_dd(CLASSIC),
        listing.to_c(CLASSIC),
        "BPF_STMT(BPF_RET | BPF_K, 0),",
        "/* a filter */\nstatic struct sock_filter f[] = { BPF_STMT(6, 0) };",
        "#include <linux/filter.h>\nstruct sock_filter x[] = {{0x6, 0, 0, 0}};",
    ],
    "decimal": [listing.to_ddd(CLASSIC), listing.to_xt_bpf(CLASSIC), "1,6 0 0 0", '"1,6 0 0 0,"', "# c\n1\n6 0 0 0\n"],
    "hex": ["06 00 00 00 00 00 00 00", "0600000000000000\n", "28 00 00 00 0c 00 00 00\n16 00 00 00 00 00 00 00\n"],
    "extended": [
        EXTENDED,
        "0: (b7) r0 = 0\n1: (95) exit\n",
        "   0: r1 = 5\n   1: exit",
        "w0 = 1\nexit",
        "// c\n.license \"GPL\"\nr0 = 0\nexit",
        "lbl: r0 = 0\nexit",
        ".insn 0x95, 0, 0, 0, 0",
    ],
    "expression": [
        "tcp port 80",
        "",
        "(tcp or udp) and not arp",
        "fe80::1",
        "10.0.0.0/8",
        "ip[6:2] & 0x1fff = 0",
        "len > 5",
        "# web\ntcp port 80\n  or port 443\n",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "ether host 00:11:22:33:44:55",
        "1 = 1",
        "host r0",
        "not ip",
    ],
}  # fmt: skip
SAMPLES = [(form, text) for form, texts in TEXTS.items() for text in texts]


@pytest.mark.parametrize(("form", "text"), SAMPLES)
def test_texts_are_recognised(tmp_path: Path, form: str, text: str) -> None:
    assert loader.sniff_text(text) == form
    assert loader.sniff_bytes(text.encode()) == form
    assert loader.sniff_bytes(text.replace("\n", "\r\n").encode()) == form
    assert loader.sniff_bytes(text.encode("utf-16")) == form


@pytest.mark.parametrize("form", ["asm", "c", "decimal"])
def test_the_same_program_from_text_bytes_and_file(tmp_path: Path, form: str) -> None:
    text = TEXTS[form][0]
    path = tmp_path / "filter"
    path.write_text(text)
    programs = [loader.load(text), loader.load(text.encode()), loader.load(path), loader.load(str(path))]
    assert all(program == programs[0] for program in programs[:2])
    assert {program.insns for program in programs} == {CLASSIC.insns}
    assert programs[2].origin == str(path)
    assert loader.load(path, form=form).insns == CLASSIC.insns


def test_raw_bytes(tmp_path: Path) -> None:
    assert loader.load(CLASSIC.to_bytes()).insns == CLASSIC.insns
    path = tmp_path / "filter.bin"
    path.write_bytes(CLASSIC.to_bytes())
    assert loader.load(path) == ClassicProgram(CLASSIC.insns, origin=str(path))
    extended = loader.load(EXTENDED_RAW)
    assert isinstance(extended, Program)
    assert extended.to_bytes() == EXTENDED_RAW
    assert isinstance(loader.load(EXTENDED_RAW, form="raw"), ClassicProgram)
    assert isinstance(loader.load(CLASSIC.to_bytes(), form="raw-extended"), Program)
    assert loader.load(EXTENDED_RAW.hex(" ", 1), form="hex") == Program.from_bytes(EXTENDED_RAW)


def test_extended_text_and_expressions(tmp_path: Path) -> None:
    program = loader.load(EXTENDED)
    assert isinstance(program, Program)
    assert len(program) == 4
    compiled = loader.load("tcp port 80", linktype="RAW")
    assert compiled == pktbpf.compile("tcp port 80", "RAW")
    assert compiled.linktype == 12
    assert compiled.libpcap.startswith("libpcap version")
    assert loader.load("tcp port 80").linktype == 1
    path = tmp_path / "web.pcap-filter"
    path.write_text("# web traffic\ntcp port 80   # plain\n  or tcp port 443\n")
    assert loader.load(path).insns == pktbpf.compile("tcp port 80 or tcp port 443").insns
    assert (
        loader.load(path, optimize=False).insns == pktbpf.compile("tcp port 80 or tcp port 443", optimize=False).insns
    )


def test_an_existing_file_wins_over_an_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tcp").write_text("ret #7")
    assert loader.load("tcp").insns == ((6, 0, 0, 7),)
    assert loader.load("udp").insns == pktbpf.compile("udp").insns


@pytest.mark.parametrize(
    "name", ["nosuch.bpf", "dir/filter", "./x", "/no/such", "filter.O", "a.pcap-filter", "~/x y", "../tcp port 80"]
)
def test_missing_files_are_said_to_be_missing(name: str) -> None:
    with pytest.raises(FilterSyntaxError, match="no such file"):
        loader.load_filter_argument(name)
    assert not loader.is_expression(name)


def test_path_objects_are_always_files() -> None:
    with pytest.raises(FilterSyntaxError, match="tcp: no such file"):
        loader.load(Path("tcp"))


def test_is_expression(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for form, text in SAMPLES:
        path.write_text(text)
        assert loader.is_expression(str(path)) == (form == "expression")
        assert loader.is_expression(text) == (form == "expression")
    path.write_bytes(CLASSIC.to_bytes())
    assert not loader.is_expression(str(path))


@pytest.mark.parametrize(("argument", "text"), [("-", "ret #7"), ("-", "tcp"), ("/dev/stdin", "tcp")])
def test_standard_input_and_pipes_are_read_once(argument: str, text: str) -> None:
    code = (
        "import sys; from pktbpf import loader as l; a = sys.argv[1]; print(l.is_expression(a)); "
        "print(l.load_filter_argument(a).insns); print(l.load_filter_argument(a, 'RAW').insns)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, argument], input=text, text=True, capture_output=True, check=True, timeout=60
    )
    expected = [loader.load(text).insns, loader.load(text, linktype="RAW").insns]
    assert done.stdout.splitlines() == [str(text == "tcp"), *map(str, expected)]


def test_objects(tmp_path: Path) -> None:
    """A damaged object is an object still, and its error names the file."""
    path = tmp_path / "x.o"
    path.write_bytes(b"\x7fELF" + bytes(60))
    assert loader.sniff_bytes(path.read_bytes()) == "elf"
    with pytest.raises(ObjectError, match=re.escape(str(path))):
        loader.load(path)


def test_an_object_stands_for_its_only_program(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded:
        def program(self) -> Program:
            return Program.from_bytes(EXTENDED_RAW)

    monkeypatch.setattr("pktbpf.objfile.load_object", lambda *_args, **_options: Loaded())
    assert isinstance(loader.load(b"\x7fELF"), Loaded)
    monkeypatch.setattr(loader, "_read_standard_input", lambda: b"\x7fELF")
    assert loader.load_filter_argument("-").to_bytes() == EXTENDED_RAW


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0", "3 bytes are not a whole number"),
        (b"\xff" * 9, "9 bytes are not a whole number"),
        (b"\xff\xfe\x00", "not a whole number|libpcap|empty"),
    ],
)
def test_bytes_that_are_nothing(data: bytes, reason: str) -> None:
    with pytest.raises(PktbpfError, match=reason):
        loader.load(data)


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown filter form 'foo'"):
        loader.load("ret #0", form="foo")
    with pytest.raises(UsageError, match="give bytes or a file"):
        loader.load("ret #0", form="raw")
    with pytest.raises(FilterSyntaxError, match="not text"):
        loader.load(b"\xff\x00\xff", form="asm")
    with pytest.raises(FilterSyntaxError, match="is a directory"):
        loader.load(tmp_path)


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bad.bpf"
    path.write_text("ldh [12]\nret $\n")
    with pytest.raises(FilterSyntaxError) as caught:
        loader.load(path)
    assert str(caught.value).startswith(f"{path}:2:5: ")


def test_light_imports() -> None:
    code = (
        "import sys, pktbpf; pktbpf.load('ret #0'); pktbpf.compile('tcp'); import pktbpf.cli.asm, pktbpf.cli.dis\n"
        "import pktbpf.cli.compile\n"
        "print([m for m in ('numpy', 'numba', 'scapy', 'pyarrow', 'elftools', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def _mutate(source: random.Random, data: bytes) -> bytes:
    raw = bytearray(data)
    for _ in range(source.randrange(1, 8)):
        place = source.randrange(len(raw) + 1)
        match source.randrange(5):
            case 0:
                raw[place : place + source.randrange(1, 9)] = b""
            case 1:
                raw[place:place] = source.randbytes(source.randrange(1, 5))
            case 2:
                raw[place:place] = source.choice(b"#%[]():,+-*&/x0aLM;{}\n 9").to_bytes(1, "little")
            case 3:
                del raw[place:]
            case _:
                at = source.randrange(len(raw) + 1)
                raw[place:place] = raw[at : at + 12]
    return bytes(raw)


def test_mutated_filters_give_only_errors_of_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that is no longer any form becomes an expression; its words must not be looked up as host names here."""

    def refuse(expression: str, **_options: object) -> ClassicProgram:
        raise ExpressionError("not compiled in this test")

    monkeypatch.setattr("pktbpf.expression.compile", refuse)
    source = random.Random(20)
    seeds = [text.encode() for form, text in SAMPLES if form not in ("expression", "extended")]
    seeds += [CLASSIC.to_bytes(), listing.to_c(CLASSIC).encode() * 2, listing.to_d(CLASSIC).encode("utf-16")]
    refused = loaded = 0
    for number in range(6000):
        data = _mutate(source, seeds[number % len(seeds)])
        try:
            loader.load(data)
            loaded += 1
        except PktbpfError as error:
            refused += 1
            assert len(str(error).splitlines()) <= 1  # noqa: PT017
    assert refused > 2000
    assert loaded > 300


def test_mutated_expressions_give_only_errors_of_the_family() -> None:
    source = random.Random(21)
    refused = 0
    for _ in range(1500):
        text = list("ip[6:2] & 0x1fff = 0 and (tcp[13] & 2 != 0 or len > 100) and not net 10.0.0.0/8")
        for _ in range(source.randrange(1, 5)):
            text[source.randrange(len(text))] = source.choice([*"0123456789[]()&|=!<>+-*/^ ", ""])
        try:
            loader.load("".join(text), form="expression")
        except ExpressionError:
            refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    "unit", ["\n", " ", "/*", "a:", "(1)", "/", "a ", "1 ", "0x", "'", "{1,", "ld ", "BPF_STMT(", "r0 "]
)
@pytest.mark.parametrize("end", ["", "$"])
def test_hostile_repetition_takes_linear_time(monkeypatch: pytest.MonkeyPatch, unit: str, end: str) -> None:
    """A quadratic pattern would need minutes for these."""

    def refuse(expression: str, **_options: object) -> ClassicProgram:
        raise ExpressionError("not compiled in this test")

    monkeypatch.setattr("pktbpf.expression.compile", refuse)
    started = time.monotonic()
    with pytest.raises(PktbpfError):
        loader.load((unit * (60_000 // len(unit)) + end).encode())
    assert time.monotonic() - started < 5


def test_patterns_are_those_that_every_python_reads_alike() -> None:
    """Possessive and atomic groups match differently before Python 3.11.5, which distributions still ship."""
    package = Path(loader.__file__).parent
    seen = 0
    for path in package.rglob("*.py"):
        if "re.compile(" not in path.read_text() or path.name in ("__main__.py", "pytest_plugin.py"):
            continue
        module = importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts))
        for pattern in vars(module).values():
            if isinstance(pattern, re.Pattern):
                seen += 1
                assert not re.search(r"(?<!\\)[*+?}]\+|\(\?>", str(pattern.pattern)), (path.name, pattern.pattern)
    assert seen > 20


@pytest.mark.parametrize(
    "text",
    ["ret #9", "retx: ret #9", "ldh [12]\nret a", "(000) ret #9", "0: ret #9", "/ a: / b: ret #9", "jmp1: ret #1"],
)
def test_a_word_that_could_begin_a_label_is_no_obstacle(text: str) -> None:
    assert loader.sniff_text(text) == "asm"


@pytest.mark.parametrize("form", [None, "expression"])
def test_comments_of_expressions_from_standard_input(form: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a file, and as `tcpdump -F -` has them."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"# what dhcp clients say\nicmp # or so\n")))
    assert loader.is_expression("-")
    assert loader.load_filter_argument("-", form=form).to_bytes() == loader.load("icmp").to_bytes()
    assert loader.load(b"# bytes\nicmp").to_bytes() == loader.load("icmp").to_bytes()


def test_standard_input_that_cannot_be_a_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(FilterSyntaxError, match="standard input is closed"):
        loader.load_filter_argument("-")
    monkeypatch.setattr("pktbpf.loader.MAX_FILE_SIZE", 1 << 20)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(bytes((1 << 20) + 1))))
    with pytest.raises(FilterSyntaxError, match="more than 1 MiB"):
        loader.load_filter_argument("-")


def test_no_bytes_are_no_filter(tmp_path: Path) -> None:
    with pytest.raises(FilterSyntaxError, match="no bytes"):
        loader.load(b"")
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert loader.load(empty).to_bytes() == loader.load("").to_bytes()  # as `tcpdump -F` has it


def test_a_directory_is_no_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "tcp").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("some", "./some", str(tmp_path / "some")):
        with pytest.raises(FilterSyntaxError, match=f"{name}: is a directory"):
            loader.load(name)
    assert loader.load("tcp") == loader.load("tcp ")


def test_programs_of_the_same_instructions_are_equal() -> None:
    program = pktbpf.compile("tcp")
    assert ClassicProgram.from_bytes(program.to_bytes()) == program
    assert hash(ClassicProgram.from_bytes(program.to_bytes())) == hash(program)
    for kind in (ClassicProgram, Program):
        with pytest.raises(ValueError, match="3 bytes are not a whole number") as caught:
            kind.from_bytes(b"abc")
        assert isinstance(caught.value, PktbpfError)


def test_an_expression_that_is_refused_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "web.txt"
    file.write_text("tcp por 80\n")
    with pytest.raises(ExpressionError, match="syntax error") as caught:
        loader.load(file)
    assert str(caught.value).startswith(f"{file}: ")
