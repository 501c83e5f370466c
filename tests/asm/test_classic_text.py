"""bpf_asm text: every row, every spelling, both jump styles, listings; every error with its line and column."""

import pytest

from pktbpf.abi import ancillary
from pktbpf.asm.classic_text import EXTENSIONS, assemble
from pktbpf.errors import FilterSyntaxError
from pktbpf.isa import classic
from pktbpf.isa.classic import BY_NAME, ClassicInsn

MENTIONED_EXTENSIONS = (
    "proto", "type", "poff", "ifidx", "nla", "nlan", "mark", "queue", "hatype", "rxhash", "cpu",
    "vlan_tci", "vlan_pr", "vlan_avail", "vlan_tpid", "rand",
)  # fmt: skip


def one(text: str) -> ClassicInsn:
    program = assemble(text)
    assert len(program) == 1
    return program.insns[0]


def fields(text: str) -> list[tuple[int, ...]]:
    return [tuple(insn) for insn in assemble(text).insns]


@pytest.mark.parametrize(
    "row", [row for row in classic.ROWS if not row.branch and row.name != "JA"], ids=lambda r: r.name
)
def test_every_row(row: classic.ClassicRow) -> None:
    operand = row.operand.replace("{k}", "77").replace("{m}", "7")
    k = 77 if "{k}" in row.operand else 7 if "{m}" in row.operand else 0
    assert one(f"{row.mnemonic} {operand}") == (row.code, 0, 0, k)
    assert one(f"  {row.mnemonic.upper()}\t{operand.upper().replace('0XF', '0xf')}  ; comment") == (row.code, 0, 0, k)


@pytest.mark.parametrize("row", [row for row in classic.ROWS if row.branch], ids=lambda r: r.name)
def test_every_branch_in_all_styles(row: classic.ClassicRow) -> None:
    operand = row.operand.format(k=5)
    k = 5 if "{k}" in row.operand else 0
    expected = [(row.code, 1, 2, k), (0x87, 0, 0, 0), (0x06, 0, 0, 1), (0x06, 0, 0, 2)]
    tail = "txa\nret #1\nret #2"
    assert fields(f"{row.mnemonic} {operand} jt 2 jf 3\n{tail}") == expected
    assert fields(f"{row.mnemonic} {operand}, jt 2, jf 3\n{tail}") == expected
    assert fields(f"{row.mnemonic} {operand}, one, two\ntxa\none: ret #1\ntwo: ret #2") == expected
    assert fields(f"(000) {row.mnemonic} {operand}  jt 2\tjf 3\n(001) txa\n(002) ret #1\n(003) ret #2") == expected
    expected[0] = (row.code, 1, 0, k)
    assert fields(f"{row.mnemonic} {operand}, one\ntxa\none: ret #1\nret #2") == expected


@pytest.mark.parametrize(
    ("name", "row"), [("jne", "JEQ"), ("jneq", "JEQ"), ("jlt", "JGE"), ("jle", "JGT")], ids=lambda x: str(x)
)
@pytest.mark.parametrize(("operand", "source", "k"), [("#9", "K", 9), ("x", "X", 0), ("%x", "X", 0)])
def test_inverted_branches(name: str, row: str, operand: str, source: str, k: int) -> None:
    code = BY_NAME[f"{row}_{source}"].code
    assert fields(f"{name} {operand}, drop\nret #1\ndrop: ret #0")[0] == (code, 0, 1, k)
    assert fields(f"{name} {operand}, drop, keep\nkeep: ret #1\ndrop: ret #0")[0] == (code, 0, 1, k)
    assert fields(f"{name} {operand} jt 2 jf 1\nret #1\nret #0")[0] == (code, 0, 1, k)


@pytest.mark.parametrize("word", MENTIONED_EXTENSIONS)
@pytest.mark.parametrize(("mnemonic", "code"), [("ld", 0x20), ("ldh", 0x28), ("ldb", 0x30)])
def test_every_extension(word: str, mnemonic: str, code: int) -> None:
    assert one(f"{mnemonic} {word}") == one(f"{mnemonic} #{word}") == one(f"{mnemonic} {word.upper()}")
    row = next(r for r in ancillary.ROWS if r.word == word or (word == "vlan_pr" and r.word == "vlan_avail"))
    assert one(f"{mnemonic} {word}") == (code, 0, 0, row.k)


def test_extension_table_is_complete() -> None:
    assert set(MENTIONED_EXTENSIONS) == set(EXTENSIONS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ldi 5", (0x00, 0, 0, 5)),
        ("ldi #-5", (0x00, 0, 0, 0xFFFFFFFB)),
        ("ldi -5", (0x00, 0, 0, 0xFFFFFFFB)),
        ("ldxi #5", (0x01, 0, 0, 5)),
        ("ldxi 0x10", (0x01, 0, 0, 16)),
        ("ld len", (0x80, 0, 0, 0)),
        ("ld #len", (0x80, 0, 0, 0)),
        ("ld pktlen", (0x80, 0, 0, 0)),
        ("ldx #len", (0x81, 0, 0, 0)),
        ("ldx 4*([14]&0xf)", (0xB1, 0, 0, 14)),
        ("ldxb 4 * ( [ 14 ] & 15 )", (0xB1, 0, 0, 14)),
        ("ldh [x+2]", (0x48, 0, 0, 2)),
        ("ldh [%x + 2]", (0x48, 0, 0, 2)),
        ("ldb [x + -4]", (0x50, 0, 0, 0xFFFFFFFC)),
        ("ldb [x - 4]", (0x50, 0, 0, 0xFFFFFFFC)),
        ("ldb [-4096]", (0x30, 0, 0, 0xFFFFF000)),
        ("add %x", (0x0C, 0, 0, 0)),
        ("ret %a", (0x16, 0, 0, 0)),
        ("ret x", (0x0E, 0, 0, 0)),
        ("ret #-1", (0x06, 0, 0, 0xFFFFFFFF)),
        ("ret #0xffffffff", (0x06, 0, 0, 0xFFFFFFFF)),
        ("ret #0b101", (0x06, 0, 0, 5)),
        ("ret #0777", (0x06, 0, 0, 0o777)),
        ("ret #+7", (0x06, 0, 0, 7)),
        ("ld [vlanp]", (0x20, 0, 0, 0xFFFFF030)),
        ("ldb [random]", (0x30, 0, 0, 0xFFFFF038)),
        ("ld [xor_x]", (0x20, 0, 0, 0xFFFFF028)),
        (".insn 0x1234, 5, 6, 0x789", (0x1234, 5, 6, 0x789)),
        ("(000) ret", (0x16, 0, 0, 0)),
        ("(000) unimp 0x81", (0x81, 0, 0, 0)),
        ("0: ldh [12]", (0x28, 0, 0, 12)),
    ],
)
def test_spellings(text: str, expected: tuple[int, ...]) -> None:
    assert one(text) == expected


def test_comments_blank_lines_and_free_layout() -> None:
    text = """# head, with words such as ld and ;
/* several
   lines */ ldh [12]   // Ethernet type
      # an indented comment
  jeq #0x800 ,
      good , bad      ; to the end of the line
good:
  ret #-1   # accepted
bad: ret #0\r
"""
    assert fields(text) == [(0x28, 0, 0, 12), (0x15, 0, 1, 0x800), (0x06, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)]
    program = assemble(text)
    assert program.labels == {2: "good", 3: "bad"}
    assert program.lines == {0: 3, 1: 5, 2: 8, 3: 9}


def test_several_instructions_on_one_line() -> None:
    expected = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x800), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]
    assert fields("ldh [12] jeq #0x800, y, n y: ret #1 n: ret #0") == expected
    assert fields("ldh [12] / jeq #0x800 jt 2 jf 3 / ret #1 / ret #0") == expected
    assert fields("ldh [12]; jeq #0x800 jt 2 jf 3; ret #1; ret #0") == expected
    assert fields("ret #1 ; ret means the end, this is prose") == [(0x06, 0, 0, 1)]


def test_jumps_always() -> None:
    assert fields("jmp end\ntax\nend: ret a")[0] == fields("ja end\ntax\nend: ret a")[0] == (0x05, 0, 0, 1)
    assert fields("ja 2\ntax\nret a")[0] == (0x05, 0, 0, 1)
    assert fields("loop: tax\nja loop")[1] == (0x05, 0, 0, 0xFFFFFFFE)
    assert fields("(000) ja -5")[0] == (0x05, 0, 0, 0xFFFFFFFA)


def test_branch_reach() -> None:
    far = "jeq #1, far\n" + "tax\n" * 255
    assert fields(far + "far: ret a")[0] == (0x15, 255, 0, 1)
    with pytest.raises(FilterSyntaxError, match="further than 255"):
        assemble(far + "tax\nfar: ret a")
    with pytest.raises(FilterSyntaxError, match="backward"):
        assemble("back: tax\njeq #1, back\nret a")


def test_the_issue_listing() -> None:
    text = """ldh [12] / jeq #0x86dd jt 2 jf 6 / ldb [20] / jeq #0x6 jt 4 jf 15 / ldh [56] / jeq #0x50 jt 14 jf 15 /
    jeq #0x800 jt 7 jf 15 / ldb [23] / jeq #0x6 jt 9 jf 15 / ldh [20] / jset #0x1fff jt 15 jf 11 /
    ldxb 4*([14]&0xf) / ldh [x + 16] / jeq #0x50 jt 14 jf 15 / ret #262144 / ret #0"""
    program = assemble(text)
    assert len(program) == 16
    assert program.insns[10] == (0x45, 4, 0, 0x1FFF)
    assert program.insns[14] == (0x06, 0, 0, 262144)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("", 1, 1, "no instructions"),
        ("; only a comment", 1, 1, "no instructions"),
        ("ldh [12]\n  frob #1", 2, 3, "expected an instruction or a label, found 'frob'"),
        ("ldh 12", 1, 5, r"expected \[k\], \[x \+ k\] or an extension .* after 'ldh', found '12'"),
        ("ldh [12\nret #0", 2, 1, "expected ']'"),
        ("ldh [12]\nret", 2, 4, "after 'ret', found the end of the text"),
        ("jeq #1", 1, 7, "expected ', label' or 'jt N jf N'"),
        ("jeq #1, 3, 4", 1, 9, "written 'jt N jf N'"),
        ("jeq #1 jt 3", 1, 12, "expected jf"),
        ("jeq #1, nowhere\nret a", 1, 9, "no such label 'nowhere'"),
        ("l1: tax\nl1: ret a", 2, 1, "label 'l1' is defined twice"),
        ("tax\nend:", 2, 1, "stands before no instruction"),
        ("add: ret a", 1, 1, "cannot be a label"),
        ("ldx proto", 1, 5, "by ld, ldh and ldb only"),
        ("ldx 4*([14]&0xe)", 1, 5, r"has the form 4\*\(\[k\]&0xf\)"),
        ("ret #4294967296", 1, 6, "does not fit into 32 bits"),
        ("ret #-2147483649", 1, 6, "does not fit into 32 bits"),
        ("ret #" + "9" * 5000, 1, 6, "does not fit into 32 bits"),
        ("ret #12ab", 1, 6, "'12ab' is not a number"),
        ("ret #0\n/* open", 2, 1, "never closed"),
        ("tax\n(002) ret a", 2, 2, "instruction 1 is numbered 002"),
        ("ret #$", 1, 6, r"character '\$' has no meaning"),
        (".insn 0x10000, 0, 0, 0", 1, 7, "opcode 65536 is more than 65535"),
        (".insn 1, 2", 1, 11, "expected ','"),
        ("ldb [x * 2]", 1, 8, r"expected '\+' and an offset"),
        ("ldb [a + 2]", 1, 6, "expected an offset or x"),
        ("st #4", 1, 4, r"expected M\[k\] after 'st'"),
        ("tax #4\nret b", 2, 5, "after 'ret', found 'b'"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(FilterSyntaxError, match=reason) as caught:
        assemble(text, source="f.bpf")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert str(caught.value).startswith(f"f.bpf:{line}:{column}: ")
    assert "\n" not in str(caught.value)
