"""C arrays and decimal listings as people keep them; every error with its line and column."""

import pytest

from pktbpf.asm import carray, decimal, listing
from pktbpf.asm.classic_text import assemble
from pktbpf.errors import FilterSyntaxError

PROGRAM = assemble("ldh [12]\njeq #0x800 jt 2 jf 3\nret #-1\nret #0")
ELEMENTS = listing.to_dd(PROGRAM)


def c(text: str, name: str | None = None) -> list[tuple[int, ...]]:
    return [tuple(insn) for insn in carray.parse(text, name=name).insns]


def element(text: str) -> tuple[int, ...]:
    (only,) = c(text)
    return only


@pytest.mark.parametrize(
    "frame",
    [
        "%s",
        "{ %s }",
        "{ %s };",
        "// { 1, 2 }\n/* struct sock_filter no[] = { */ %s",
        "struct sock_filter code[] = {\n%s};",
        "static const struct sock_filter __maybe_unused code[4] __attribute__((unused)) = {%s};",
        "struct bpf_insn insns[] = { %s };\nint main(void) { return 0; }",
        '#include <linux/filter.h>\n\nconst char *s = "struct sock_filter x[] = {";\nstruct sock_filter a[] = { %s };',
        "fprog.filter = (struct sock_filter[]) { %s };",
        "static struct sock_filter code[] = { %s };\nstruct sock_fprog p = { .len = 4, .filter = code };",
    ],
)
def test_frames_around_the_elements(frame: str) -> None:
    assert carray.parse(frame % ELEMENTS).insns == PROGRAM.insns


def test_macros_names_and_expressions() -> None:
    text = """
    #define OFFSET (ETH_HLEN + \\
                    9)
    #define ACCEPT ((unsigned)-1)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD+BPF_H+BPF_ABS, 12),   /* Ethernet type */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETHERTYPE_IP, 0, 3),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, OFFSET),
        [3] = { .code = BPF_JMP+BPF_JEQ+BPF_K, .k = IPPROTO_UDP, .jf = 1 },
        (struct sock_filter) BPF_STMT(BPF_RET + BPF_K, (u_int)-1),
        { BPF_RET },
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, SKF_AD_OFF + SKF_AD_MARK },
        { 0x6, 0, 0, ACCEPT },
    };"""
    assert c(text) == [
        (0x28, 0, 0, 12),
        (0x15, 0, 3, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 1, 17),
        (0x06, 0, 0, 0xFFFFFFFF),
        (0x06, 0, 0, 0),
        (0x20, 0, 0, 0xFFFFF014),
        (0x06, 0, 0, 0xFFFFFFFF),
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("1 << 4 | 2", 18),
        ("0x10 >> 2 & 3", 0),
        ("10 - 4 - 3", 3),
        ("-7 / 2 + 10", 7),
        ("-7 % 4 + 10", 7),
        ("~0", 0xFFFFFFFF),
        ("!5", 0),
        ("(uint16_t)~0", 0xFFFF),
        ("(unsigned short)0x12345", 0x2345),
        ("(s8)0xff", 0xFFFFFFFF),
        ("0x7fUL", 127),
        ("010", 8),
        ("'A'", 65),
        ("'\\n'", 10),
        ("3 > 2 && 1 <= 1", 1),
        ("0 || 0", 0),
        ("7 ^ 2", 5),
        ("ETH_P_IPV6", 0x86DD),
        ("SKF_NET_OFF", 0xFFF00000),
    ],
)
def test_constant_expressions(expression: str, value: int) -> None:
    assert element(f"{{ 0, 0, 0, {expression} }}") == (0, 0, 0, value)


def test_one_of_several_arrays() -> None:
    text = "struct sock_filter one[] = {{6, 0, 0, 1}};\nstruct sock_filter two[] = {{6, 0, 0, 2}};"
    assert c(text, "two") == [(6, 0, 0, 2)]
    with pytest.raises(FilterSyntaxError, match=r"2 arrays .* choose one by its name: one, two"):
        c(text)
    with pytest.raises(FilterSyntaxError, match="is named 'three'; there are: one, two"):
        c(text, "three")


def test_definitions_that_multiply_stay_cheap() -> None:
    lines = [f"#define A{n} A{n + 1}" + f" | A{n + 1}" * 9 for n in range(12)]
    assert element("\n".join([*lines, "#define A12 4", "{ 6, 0, 0, A0 }"])) == (6, 0, 0, 4)


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("{ 6, 0, 0", 1, 1, "never closed"),
        ("{6,0,0,0},\n{6,0,0,0}}", 2, 10, "closes nothing"),
        ("BPF_STMT(6)", 1, 1, r"BPF_STMT\(code, k\) has 2 values, not 1"),
        ("{ 6, 0, 0, foo }", 1, 12, "constant 'foo' is not known"),
        ("{6,0,0,1,2}", 1, 2, "four members"),
        ("{6,300,0,0}", 1, 4, "jt 300 does not fit into 8 bits"),
        ("{65536,0,0,0}", 1, 2, "code 65536 does not fit into 16 bits"),
        ("{6,0,0,0x1ffffffff}", 1, 8, "does not fit into 32 bits"),
        ("{6,0,0,sizeof(x)}", 1, 8, r"sizeof\(\) needs a compiler"),
        ("{6,0,0,offsetof(struct iphdr, ttl)}", 1, 8, r"offsetof\(\) needs a compiler"),
        ("{6,0,0,1/0}", 1, 9, "division by zero"),
        ("{6,0,0,1<<64}", 1, 9, "cannot shift by 64"),
        ("{6,0,0," + "(" * 90 + "1" + ")" * 90 + "}", 1, 48, "nested too deeply"),
        ("#define A A\n{6,0,0,A}", 2, 8, "'A' is defined by itself"),
        ("{6,0,0,08}", 1, 8, "'08' is not a number"),
        ("{6,,0}", 1, 2, "expected a number"),
        ("{.kk = 1}", 1, 3, "no member 'kk'"),
        ("[1] = {6}", 1, 1, r"element 0 is placed at \[1\]"),
        ("JUMP(1)", 1, 1, r"expected { code, jt, jf, k }, BPF_STMT"),
        ("struct sock_filter a[] = {", 1, 26, "never closed"),
        ("struct sock_filter a[] = { };", 1, 27, "no instructions"),
        ("struct sock_filter a[]={\n#ifdef X\n{6,0,0,0},\n#endif\n};", 2, 1, "a preprocessor line"),
    ],
)
def test_c_errors(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(FilterSyntaxError, match=reason) as caught:
        carray.parse(text, source="f.c")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "4\n40 0 0 12\n21 0 1 2048\n6 0 0 4294967295\n6 0 0 0\n",
        "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0",
        "4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0,\n",
        "'4,40 0 0 12,21 0 1 2048,6 0 0 4294967295,6 0 0 0'",
        "# IPv4 only\n4\r\n40 0 0 12\r\n21\t0 1 2048\r\n6 0 0 4294967295\r\n6 0 0 0\r\n\r\n",
        "40 0 0 12\n21 0 1 2048\n6 0 0 4294967295\n6 0 0 0",
    ],
)
def test_decimal_forms(text: str) -> None:
    assert decimal.parse(text).insns == PROGRAM.insns


@pytest.mark.parametrize(
    ("text", "line", "column", "reason"),
    [
        ("", 1, 1, "no instructions"),
        ("2\n6 0 0 0\n", 2, 8, "announces 2 instructions and has 1"),
        ("1\n6 0 0\n", 2, 1, "expected four numbers .* found 3"),
        ("1,6 0 0 0 0", 1, 3, "expected four numbers .* found 5"),
        ("1\n6 256 0 0", 2, 3, "jt 256 is more than 255"),
        ("1\n65536 0 0 0", 2, 1, "code 65536 is more than 65535"),
        ("1\n6 0 0 4294967296", 2, 7, "k 4294967296 is more than"),
        ("1\n6 0 0 -1", 2, 7, "expected a decimal number for k, found '-1'"),
        ("1\n6 0 0 0x10", 2, 7, "expected a decimal number for k"),
        ("1\n6 0 0 " + "9" * 5000, 2, 7, "is more than"),
    ],
)
def test_decimal_errors(text: str, line: int, column: int, reason: str) -> None:
    with pytest.raises(FilterSyntaxError, match=reason) as caught:
        decimal.parse(text, source="f.ddd")
    assert (caught.value.line, caught.value.column) == (line, column)
