"""Text, listings and number forms back to the same instructions, for known operations and for any bytes."""

import ctypes
import functools
import os
import random
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktbpf.asm import carray, classic_dis, decimal, listing
from pktbpf.asm.classic_text import assemble
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa import classic
from pktbpf.isa.classic import ClassicInsn
from pktbpf.program import ClassicProgram

CODES = sorted(classic.BY_CODE)
NOTABLE = (0, 1, 3, 12, 15, 16, 31, 32, 255, 0x800, 0x7FFFFFFF, 0x80000000, 0xFFF00000, 0xFFFFF000, 0xFFFFFFFF)
values = st.one_of(st.sampled_from(NOTABLE), st.integers(0xFFFFF000, 0xFFFFF040), st.integers(0, 0xFFFFFFFF))
short = st.one_of(st.integers(0, 4), st.integers(0, 255))
known = st.builds(ClassicInsn, st.sampled_from(CODES), short, short, values)
any_insn = st.builds(ClassicInsn, st.integers(0, 0xFFFF), short, short, values)
programs = st.lists(st.one_of(known, any_insn), min_size=1, max_size=40).map(lambda i: ClassicProgram(tuple(i)))


@st.composite
def tidy_programs(draw: st.DrawFn) -> ClassicProgram:
    """Known operations, unused fields zero, jumps inside."""
    count = draw(st.integers(1, 40))
    insns = []
    for number in range(count):
        row = draw(st.sampled_from(classic.ROWS))
        room = count - number - 2
        if room < 0 and (row.branch or row.name == "JA"):
            row = classic.BY_NAME["RET_A"]
        k = draw(values) if "{" in row.operand else 0
        if row.name == "JA":
            k = draw(st.integers(0, room))
        jt, jf = (draw(st.integers(0, room)), draw(st.integers(0, room))) if row.branch else (0, 0)
        insns.append(ClassicInsn(row.code, jt, jf, k))
    return ClassicProgram(tuple(insns))


@settings(max_examples=400, deadline=None)
@given(programs)
def test_any_program_survives_as_text(program: ClassicProgram) -> None:
    assert assemble(classic_dis.disassemble(program)).insns == program.insns


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=8, max_size=200).map(lambda raw: raw[: len(raw) & ~7]))
def test_any_bytes_survive_as_text(raw: bytes) -> None:
    program = ClassicProgram.from_bytes(raw)
    assert assemble(classic_dis.disassemble(program)).to_bytes() == raw


@settings(max_examples=300, deadline=None)
@given(tidy_programs())
def test_known_operations_need_no_raw_form(program: ClassicProgram) -> None:
    text = classic_dis.disassemble(program)
    assert ".insn" not in text
    assert " jt " not in text
    assert assemble(text).insns == program.insns


@settings(max_examples=300, deadline=None)
@given(tidy_programs())
def test_listings_survive(program: ClassicProgram) -> None:
    """`-d` keeps everything but what libpcap has no words for; that is the opcode alone."""
    for text in (listing.to_d(program), listing.to_d(program).replace("\n", " / ")):
        assert assemble(text).insns == program.insns


@settings(max_examples=200, deadline=None)
@given(programs)
def test_number_forms_survive(program: ClassicProgram) -> None:
    assert carray.parse(listing.to_dd(program)).insns == program.insns
    assert carray.parse(listing.to_c(program)).insns == program.insns
    assert decimal.parse(listing.to_ddd(program)).insns == program.insns
    assert decimal.parse(listing.to_xt_bpf(program)).insns == program.insns


def test_own_labels_are_kept() -> None:
    text = "     ldh [12]\n     jneq #0x800, drop\n     ret #-1\ndrop:ret #0\n"
    again = classic_dis.disassemble(assemble(text))
    assert "jneq #0x800, drop" in again
    assert again.splitlines()[3].split() == ["drop:", "ret", "#0"]


def test_labels_that_would_not_assemble_are_replaced() -> None:
    insns = (ClassicInsn(0x15, 1, 0, 7), ClassicInsn(6), ClassicInsn(6, k=1), ClassicInsn(6, k=2))
    for labels in ({2: "add"}, {2: "proto"}, {2: "no label"}, {3: "L02", 2: "x"}):
        text = classic_dis.disassemble(ClassicProgram(insns, labels=labels))
        assert assemble(text).insns == insns


@functools.cache
def bpf_image() -> "ctypes._NamedFuncPointer | None":
    for name in ("libpcap.so.1", "libpcap.so.0.8"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_lib_version.restype = ctypes.c_char_p
        if b"version 1.10" in library.pcap_lib_version():
            library.bpf_image.restype = ctypes.c_char_p
            return library.bpf_image
    return None


@pytest.mark.parametrize("k", [*NOTABLE, *range(0xFFFFF000, 0xFFFFF044), 0xFFFFEFFF])
def test_lines_are_those_of_libpcap(k: int) -> None:
    """Every opcode, all the ancillary offsets, against the function that tcpdump prints with."""
    image = bpf_image()
    if image is None:
        pytest.skip("no libpcap 1.10 on this system")
    for code in (*range(0x100), 0x115, 0x1D15, 0x8006, 0xFFFF):
        for number, jt, jf in ((0, 0, 0), (7, 1, 2), (1234, 255, 200)):
            insn = ClassicInsn(code, jt, jf, k)
            raw = ctypes.create_string_buffer(insn.encode())
            assert listing.image(insn, number) == image(raw, number).decode()


def test_dump_lines() -> None:
    program = assemble("ldh [12]\njeq #0x800, ok, no\nok: ret #-1\nno: ret #0")
    assert listing.to_d(program) == (
        "(000) ldh      [12]\n(001) jeq      #0x800           jt 2\tjf 3\n(002) ret      #-1\n(003) ret      #0\n"
    )
    assert listing.to_dd(program).splitlines()[1] == "{ 0x15, 0, 1, 0x00000800 },"
    assert listing.to_ddd(program) == "4\n40 0 0 12\n21 0 1 2048\n6 0 0 4294967295\n6 0 0 0\n"
    assert listing.to_xt_bpf(program) == "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0\n"


@pytest.mark.long
@pytest.mark.parametrize("seed", range(400))
def test_kernel_assembler_agrees(seed: int) -> None:
    """`PKTBPF_BPF_ASM` names a bpf_asm built from the kernel's tools/bpf; it takes every disassembly."""
    tool = os.environ.get("PKTBPF_BPF_ASM")
    if not tool:
        pytest.skip("PKTBPF_BPF_ASM does not name the kernel's bpf_asm")
    source = random.Random(seed)
    insns = []
    for room in range(source.randrange(1, 60), -1, -1):
        row = source.choice(classic.ROWS)
        if room < 2 and (row.branch or row.name == "JA"):
            row = classic.BY_NAME["RET_A"]
        k = source.choice((*NOTABLE, source.getrandbits(32))) if "{" in row.operand else 0
        k = source.randrange(room) if row.name == "JA" else k
        jt, jf = (source.randrange(room), source.randrange(room)) if row.branch else (0, 0)
        insns.append(ClassicInsn(row.code, jt, jf, k))
    program = ClassicProgram(tuple(insns))
    text = classic_dis.disassemble(program)
    done = subprocess.run([tool, "/dev/stdin"], input=text, capture_output=True, text=True, check=True)
    assert decimal.parse(done.stdout).insns == program.insns == assemble(text).insns


def test_refused_text_never_escapes_the_error_family() -> None:
    """Random edits of a good text: either a program or an error with its place."""
    source = random.Random(5)
    good = classic_dis.disassemble(
        assemble("ldh [12]\njeq #0x800, ok\nldxb 4*([14]&0xf)\nldb [x + 2]\njset #1, ok, no\nok: ret #-1\nno: ret a")
    )
    refused: list[FilterSyntaxError] = []
    for _ in range(3000):
        text = list(good)
        for _ in range(source.randrange(1, 6)):
            text[source.randrange(len(text))] = source.choice(["", " ", "\n", *"#%[]():,+-*&/x0aLM;\x00\xff\u2028"])
        try:
            assemble("".join(text))
        except FilterSyntaxError as error:
            refused.append(error)
    assert len(refused) > 1000
    assert all(error.line is not None and error.column is not None for error in refused)
