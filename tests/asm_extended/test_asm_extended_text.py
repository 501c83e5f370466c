"""Extended assembly both ways: every operation, every word, the listings of bpftool and llvm-objdump, and errors."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pktbpf.asm.extended_text import assemble, disassemble, format_insn
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa.extended import ROWS, Insn, Kind, Row
from pktbpf.program import KernelVariable, MapSpec, Program

LISTINGS = Path(__file__).parent / "listings"
OFFSETS = (0, 1, -1, 16, 32767, -32768)
IMMEDIATES = (0, 1, -1, 5, 2**31 - 1, -(2**31))


def sample(row: Row, rng: random.Random, count: int = 16) -> tuple[Insn, ...]:
    """A random instruction of a row, all its operands anywhere in their range.

    count: of registers, 11 for those that text may name.
    """

    def pick(name: str, fixed: int | None, values: tuple[int, ...]) -> int:
        return fixed if fixed is not None else rng.choice(values) if name in row.uses else 0

    registers = tuple(range(count))
    insn = Insn(
        row.code,
        pick("dst", None, registers),
        pick("src", row.src, registers),
        pick("off", row.off, OFFSETS),
        pick("imm", row.imm, IMMEDIATES),
    )
    if row.kind is not Kind.LOAD_IMM64:
        return (insn,)
    upper = rng.choice(IMMEDIATES) if "{imm64}" in row.syntax or "{hi}" in row.syntax else 0
    return insn, Insn(0, imm=upper)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_operation_prints_and_assembles_back(row: Row) -> None:
    rng = random.Random(row.name)
    for _ in range(20):
        insns = sample(row, rng, 11)
        assert insns[0].row is row
        text = format_insn(*insns)
        assert ".insn" not in text
        assert assemble(text).insns == insns


def test_an_exit_with_an_offset_keeps_it() -> None:
    program = Program((Insn(0xB7, 0), Insn(0x95, off=5)))
    assert ".insn 0x95, 0, 0, 5, 0" in disassemble(program)


def test_every_word_assembles_back() -> None:
    rng = random.Random(7)
    options = ({}, {"opcodes": True}, {"labels": True}, {"declare": True})
    for number in range(120):
        words: list[Insn] = []
        for _ in range(30):
            words += sample(rng.choice(ROWS), rng) if rng.random() < 0.6 else [Insn.decode(rng.randbytes(8))]
        program = Program(tuple(words))
        text = disassemble(program, **options[number % len(options)])
        assert assemble(text).insns == program.insns, text


STATEMENTS = {
    "r0 = *(u32 *)(r1 +16)": "6110100000000000",
    "r0 = *(u32 *)(r1 + 16)": "6110100000000000",
    "r0 = *(u32 *)(r1)": "6110000000000000",
    "w0 = *(u32 *)(r1 - 4)": "6110fcff00000000",
    "if r0 s> 5 goto +3": "6500030005000000",
    "if r0 s> 0x5 goto pc+3": "6500030005000000",
    "if r0 == 0xffffffff goto pc-1": "1500ffffffffffff",
    "if w3 & w4 goto +2 <LBB0_2>": "4e43020000000000",
    "goto pc+3": "0500030000000000",
    "gotol +70000": "0600000070110100",
    "may_goto +2": "e500020000000000",
    "lock *(u64 *)(r2 +0) += r3": "db32000000000000",
    "lock *(u32 *)(r2 +0) &= w3": "c332000050000000",
    "r1 = 0x123 ll": "18010000230100000000000000000000",
    "r1 = -1 ll": "18010000ffffffff00000000ffffffff",
    "r1 = map[fd:7] ll": "18110000070000000000000000000000",
    "r1 = map[fd:7][0]+12 ll": "1821000007000000000000000c000000",
    "r1 = map[idx:2] ll": "18510000020000000000000000000000",
    "r2 = subprog[+5] ll": "18420000050000000000000000000000",
    "call bpf_map_lookup_elem#1": "8500000001000000",
    "call bpf_map_lookup_elem": "8500000001000000",
    "call map_lookup_elem": "8500000001000000",
    "call helper 1": "8500000001000000",
    "call 1": "8500000001000000",
    "call unknown#4000": "85000000a00f0000",
    "call pc+5": "8510000005000000",
    "call -1": "85100000ffffffff",
    "call kernel-function#77": "852000004d000000",
    "w1 = w2": "bc21000000000000",
    "r1 = w2": "bc21000000000000",
    "r1 = (s8)r2": "bf21080000000000",
    "w1 = (s16)w2": "bc21100000000000",
    "r1 s/= 3": "3701010003000000",
    "r1 = -r1": "8701000000000000",
    "r3 = be16 r3": "dc03000010000000",
    "r3 = bswap64 r3": "d703000040000000",
    "r1 = *(s8 *)(r2 +1)": "9121010000000000",
    "*(u8 *)(r10 -1) = -1": "720affffffffffff",
    "r0 = atomic64_cmpxchg((u64 *)(r1 +0), r0, r2)": "db210000f1000000",
    "w0 = cmpxchg32_32(r1 + 0, w0, w2)": "c3210000f1000000",
    "r1 = load_acquire((u16 *)(r2 +4))": "cb21040000010000",
    "store_release((u8 *)(r2 +4), w1)": "d312040010010000",
    "r0 = *(u16 *)skb[12]": "280000000c000000",
    "r0 = *(u8 *)skb[r2]": "5020000000000000",
    "r0 = *(u8 *)skb[r2 + -4]": "50200000fcffffff",
    "; /* not\n/* two\nlines */ exit": "9500000000000000",
    "exit": "9500000000000000",
    "  3: (b7) r1 = 5 ; R1_w=5": "b701000005000000",
    "  3: (18) r1 = 0x5": "18010000050000000000000000000000",
    "       3:\tb7 01 00 00 05 00 00 00\tr1 = 5": "b701000005000000",
    "       3:\t85 10 00 00 05 00 00 00\tcall 5": "8510000005000000",
    "  3: (c2) nospec": "c200000000000000",
    "r2 = &(void __percpu *)(r3)": "bf32ffff00000000",
    "  3: (85) call bpf_dynptr_from_skb#12345\n       85 20 00 00 39 30 00 00": "8520000039300000",
    "  3: (85) call bpf_user_rnd_u32#22592\n       85 00 00 00 40 58 00 00": "8500000040580000",
    ".insn 0xff, 1, 15, -2, 0xffffffff": "fff1feffffffffff",
}


@pytest.mark.parametrize("text", STATEMENTS)
def test_statement(text: str) -> None:
    assert assemble(text).to_bytes().hex() == STATEMENTS[text]


@pytest.mark.parametrize(
    ("listing", "golden"),
    [
        ("bpftool_xlated.txt", "bpftool.hex"),
        ("bpftool_opcodes.txt", "bpftool.hex"),
        ("bpftool_linum.txt", "bpftool.hex"),
        ("bpftool_callbacks.txt", "bpftool_callbacks.hex"),
        ("bpftool_callbacks_opcodes.txt", "bpftool_callbacks.hex"),
        ("bpftool_percpu_opcodes.txt", "bpftool_percpu.hex"),
        ("llvm14.txt", "llvm.hex"),
        ("llvm14_alu32_source.txt", "llvm.hex"),
        ("llvm14_no_bytes.txt", "llvm.hex"),
    ],
)
def test_listing_assembles_to_its_bytes(listing: str, golden: str) -> None:
    want = bytes.fromhex((LISTINGS / golden).read_text())
    assert assemble((LISTINGS / listing).read_text()).to_bytes() == want


def test_bpftool_wording() -> None:
    """Each instruction of bpftool's listing prints again in bpftool's words, but for what only a live kernel knows."""
    program = Program.from_bytes(bytes.fromhex((LISTINGS / "bpftool.hex").read_text()))
    shown = (LISTINGS / "bpftool_xlated.txt").read_text().splitlines()
    theirs = [line for line in shown if re.match(r" *[0-9]+: [(]", line)]
    ours = disassemble(program, opcodes=True).splitlines()
    assert len(theirs) == len(ours)
    for a, b in zip(theirs, ours, strict=True):
        if "call" not in a and "map[id" not in a:
            assert b.removesuffix(" ll") == a


# The wording of llvm-objdump since 17: hexadecimal distances and offsets, w registers for narrow values.
NEWER_LLVM = """
demo.o:\tfile format elf64-bpf

Disassembly of section socket:

0000000000000000 <demo>:
       0:\t61 12 10 00 00 00 00 00\tw2 = *(u32 *)(r1 + 0x10)
       1:\t16 02 05 00 08 00 00 00\tif w2 == 0x8 goto +0x5 <demo+0x38>
       2:\t73 2a ff ff 00 00 00 00\t*(u8 *)(r10 - 0x1) = w2
       3:\tb4 00 00 00 ff ff ff ff\tw0 = -0x1
       4:\t18 03 00 00 ff ff ff ff 00 00 00 00 00 00 00 00\tr3 = 0xffffffff ll
       6:\t06 00 00 00 01 00 00 00\tgotol +0x1 <demo+0x40>
       7:\t85 00 00 00 07 00 00 00\tcall 0x7
       8:\t91 14 fe ff 00 00 00 00\tr4 = *(s8 *)(r1 - 0x2)
       9:\tbf 45 10 00 00 00 00 00\tr5 = (s16)r4
      10:\tdb 41 08 00 00 00 00 00\tlock *(u64 *)(r1 + 0x8) += r4
      11:\te5 00 f4 ff 00 00 00 00\tmay_goto -0xc <demo>
      12:\td3 16 00 00 00 01 00 00\tw6 = load_acquire((u8 *)(r1 + 0x0))
      13:\t95 00 00 00 00 00 00 00\texit
"""


def test_newer_llvm_listing() -> None:
    """Text and bytes of each line agree, or assemble() would refuse it; without the bytes the result is the same."""
    program = assemble(NEWER_LLVM)
    assert len(program) == 14
    bare = re.sub(r"(?m)^( *\d+:\t)[0-9a-f ]+\t", r"\1", NEWER_LLVM)
    assert assemble(bare).insns == program.insns


ERRORS = [
    ("r0 = *(u32 *)(r1 +16", 1, 21, "ends too early"),
    ("r0 = 1\nr1 =? 4", 2, 5, "unexpected character '?'"),
    ("  frob r1", 1, 3, "unexpected 'frob'"),
    ("r16 = 1", 1, 1, "unexpected 'r16'"),
    ("goto nowhere", 1, 6, "label 'nowhere' is not defined"),
    ("x: exit\nx: exit", 2, 1, "already defined"),
    ("r0 = 4294967296", 1, 6, "does not fit in 32 bits"),
    ("r0 = *(u8 *)(r1 +32768)", 1, 17, "does not fit in 16 signed bits"),
    ("if r0 == 1 goto +40000", 1, 17, "jump with gotol"),
    ("r1 = map[counts] ll", 1, 10, "map 'counts' is not declared"),
    ("call frobnicate", 1, 6, "neither a helper nor a label"),
    ("goto 5", 1, 6, "a distance has a sign"),
    ("r1 = -r2", 1, 7, "same register"),
    (".frob 1", 1, 1, "unknown directive"),
    (".insn 1, 2", 1, 1, ".insn takes"),
    (".insn 256, 0, 0, 0, 0", 1, 1, ".insn takes"),
    (".map m ARRAY wide=1\nexit", 1, 1, "unexpected 'wide=1'"),
    (".map m ARRY key_size=4\nexit", 1, 1, "no map type 'ARRY'"),
    (".map m ARRAY key_size=x\nexit", 1, 1, "a number is missing"),
    (".map m ARRAY key_size=4294967296\nexit", 1, 1, "key_size does not fit in 32 bits"),
    ("r0 = 1234567890123456789012345", 1, 6, "number of 25 digits"),
    (".map m ARRAY_OF_MAPS inner=n\nexit", 1, 1, "inner map 'n'"),
    ("  0: (b7) r0 = r1", 1, 11, "opcode b7 is of another operation"),
    ("  0:\tb7 01 00 00 05 00 00 00\tr1 = 6", 1, 30, "contradict"),
    ("  0:\t<unknown>", 1, 6, "raw bytes"),
    ("; nothing\n", 1, None, "no instruction"),
]


@pytest.mark.parametrize(("text", "line", "column", "reason"), ERRORS, ids=lambda value: str(value)[:20])
def test_errors_say_where(text: str, line: int, column: int | None, reason: str) -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        assemble(text, source="x.ebpf")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000, " " * 50_000 + "frob", "x:" * 50_000, "int " * 50_000 + "f(", "a" * 50_000 + "):",
        "a " * 50_000 + "(x):", "00 " * 50_000, "0: " * 50_000, "r0 = " + "9" * 50_000, "call " + "x#" * 50_000,
        "goto +1 <" * 50_000, "/*" * 50_000, ": " * 50_000, "r0 = map[" + "[" * 50_000,
        ".map m ARRAY " + "a " * 50_000,
    ],
    ids=lambda text: text[:8].strip(),
)  # fmt: skip
def test_hostile_lines_are_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(FilterSyntaxError) as caught:
        assemble(text)
    assert time.process_time() - start < 2
    assert len(str(caught.value)) < 400


def test_labels_and_functions() -> None:
    program = assemble("""
        start:  r6 = r1
                call double
                if r0 > 100 goto out
                goto start
        out:    exit
        double: r0 = r1 ; twice
                r0 += r0
                exit
                r1 = subprog[double] ll
    """)
    assert program.insns[1] == Insn(0x85, 0, 1, 0, 3)
    assert program.insns[2].off == 1
    assert program.insns[3].off == -4
    assert program.insns[8] == Insn(0x18, 1, 4, 0, -4)
    listing = disassemble(program, labels=True)
    assert "func_1:" in listing
    assert "call func_1" in listing
    assert assemble(listing).insns == program.insns


def test_a_label_shadows_a_helper() -> None:
    assert assemble("call exit_now\nexit_now: exit").insns[0].src == 1
    assert assemble("call strncmp\nstrncmp: exit").insns[0].src == 1


def test_declared_maps_travel() -> None:
    inner = MapSpec("ARRAY", 4, 4, 1, name="outer.inner")
    maps = {
        0: MapSpec("HASH", 4, 8, 1024, flags=1, name="counts"),
        2: MapSpec("ARRAY_OF_MAPS", 4, 4, 2, name="outer", inner=inner),
        4: MapSpec("ARRAY", 4, 8, 1),
    }
    words = []
    for src in (1, 1, 2):
        words += [Insn(0x18, 1, src), Insn(0, imm=4 if src == 2 else 0)]
    program = Program((*words, Insn(0x95)), name="demo", license="Dual BSD/GPL", maps=maps)
    text = disassemble(program, declare=True)
    again = assemble(text)
    assert again.insns == program.insns
    assert again.name == "demo"
    assert again.license == "Dual BSD/GPL"
    assert again.maps[0] == maps[0]
    assert again.maps[2] == maps[2]
    assert again.maps[4] == MapSpec("ARRAY", 4, 8, 1, name="map0")
    assert disassemble(again, declare=True) == text


def test_maps_from_the_caller() -> None:
    spec = MapSpec("ARRAY", 4, 8, 1, name="counts")
    program = assemble("r1 = map[counts] ll\nexit", maps={"counts": spec})
    assert program.maps == {0: spec}
    assert "map[counts] ll" in disassemble(program)


def test_source_lines_are_comments() -> None:
    program = Program((Insn(0xB7), Insn(0xB7, imm=1), Insn(0x95)), lines={0: "a.c:1: int x;", 1: "a.c:1: int x;"})
    text = disassemble(program)
    assert text.splitlines()[0] == "; a.c:1: int x;"
    assert text.count("a.c") == 1
    assert "a.c" not in disassemble(program, lines=False)
    assert assemble(text).insns == program.insns


def test_no_numba_for_text() -> None:
    code = (
        "import sys, pktbpf.asm.extended_text, pktbpf.asm.builder\n"
        "assert not {'numba', 'numpy', 'elftools'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernel_functions_go_by_name() -> None:
    program = assemble("r1 = r10\nr1 += -8\ncall bpf_iter_num_next\ncall bpf_iter_num_destroy#64253\nr0 = 0\nexit\n")
    assert program.kfuncs == {2: "bpf_iter_num_next", 3: "bpf_iter_num_destroy"}
    assert [insn.src for insn in program.insns[2:4]] == [2, 2]
    assert program.insns[3].imm == 64253
    text = disassemble(program)
    assert "call bpf_iter_num_next\ncall bpf_iter_num_destroy\n" in text
    assert assemble(text).kfuncs == program.kfuncs


def test_a_name_that_neither_the_helpers_nor_the_kernel_have() -> None:
    with pytest.raises(FilterSyntaxError, match="'bpf_frobnicate' is neither"):
        assemble("call bpf_frobnicate\nexit\n")


def test_variables_of_the_kernel_go_by_name() -> None:
    program = assemble(".weak runqueues\nr1 = ksym[bpf_prog_active] ll\nr2 = ksym[runqueues] ll\nr0 = 0\nexit\n")
    assert program.kvars == {0: KernelVariable("bpf_prog_active"), 2: KernelVariable("runqueues", weak=True)}
    assert program.insns[0] == Insn(0x18, 1, 3, 0, 0)
    for opcodes in (False, True):
        again = assemble(disassemble(program, opcodes=opcodes))
        assert (again.insns, again.kvars) == (program.insns, program.kvars)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("r12 &= 1", 1, "no register r12; r0 to r10"),
        ("r1 += r11", 7, "no register r11; r0 to r10"),
        ("r2 &= 99999999999", 7, "99999999999 does not fit in 32 bits"),
    ],
)
def test_operands_that_no_instruction_has(text: str, column: int, reason: str) -> None:
    with pytest.raises(FilterSyntaxError, match=reason) as caught:
        assemble(f"{text}\nexit\n")
    assert (caught.value.line, caught.value.column) == (1, column)


def test_registers_above_r10_in_bytes_are_listed_and_read_again() -> None:
    raw = bytes.fromhex("570c000001000000 0fb1000000000000 180b000001000000 0000000000000000 9500000000000000")
    program = Program.from_bytes(raw)
    assert disassemble(program).splitlines()[0] == ".insn 0x57, 12, 0, 0, 1"
    assert assemble(disassemble(program)).to_bytes() == raw
    assert "(57) r12 &= 1" in disassemble(program, opcodes=True)
    assert assemble(disassemble(program, opcodes=True)).to_bytes() == raw
