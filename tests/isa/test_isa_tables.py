"""Both instruction tables: decoding is total, every row is found again, and the bits mean what the names say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktbpf.isa import classic, extended, fields
from pktbpf.isa.classic import ClassicInsn
from pktbpf.isa.extended import Insn, Kind, Row

EIGHT = st.binary(min_size=8, max_size=8)


@given(EIGHT)
def test_every_classic_word_round_trips(raw: bytes) -> None:
    insn = ClassicInsn.decode(raw)
    assert insn.encode() == raw
    assert insn.row is None or insn.row.code == insn.code


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFFFFFF))
def test_every_classic_value_round_trips(code: int, jt: int, jf: int, k: int) -> None:
    insn = ClassicInsn(code, jt, jf, k)
    assert ClassicInsn.decode(insn.encode()) == insn


@given(EIGHT)
def test_every_extended_word_round_trips(raw: bytes) -> None:
    insn = Insn.decode(raw)
    assert insn.encode() == raw
    row = insn.row
    if row is not None:
        assert row.matches(insn)
        assert row.reserved_clear(insn)


@given(st.binary(max_size=200))
def test_programs_decode_or_say_why_not(raw: bytes) -> None:
    for module in (classic, extended):
        if len(raw) % 8:
            with pytest.raises(ValueError, match="whole number"):
                module.decode_all(raw)
        else:
            assert module.encode_all(module.decode_all(raw)) == raw  # type: ignore[arg-type]


@pytest.mark.parametrize("row", classic.ROWS, ids=lambda row: row.name)
def test_classic_row(row: classic.ClassicRow) -> None:
    assert classic.BY_CODE[row.code] is row
    assert row.code < 0x100
    assert row.branch == (row.name[0] == "J" and row.name != "JA")


def test_classic_rows_are_the_kernels_whitelist() -> None:
    names = {row.name for row in classic.ROWS}
    assert len(names) == len(classic.ROWS) == len(classic.BY_CODE) == 49


def filled(row: Row) -> Insn:
    """An instruction of this row with every operand at a value that is no other row's selector."""
    operands = {"dst": 3, "src": 5, "off": 7, "imm": 9}
    fields_of = {name: operands[name] for name in row.uses}
    fields_of |= {name: value for name in ("src", "off", "imm") if (value := getattr(row, name)) is not None}
    return Insn(row.code, **fields_of)


@pytest.mark.parametrize("row", extended.ROWS, ids=lambda row: row.name)
def test_extended_row_is_found_again(row: Row) -> None:
    assert filled(row).row is row


@pytest.mark.parametrize("row", extended.ROWS, ids=lambda row: row.name)
def test_reserved_fields_must_be_zero(row: Row) -> None:
    insn = filled(row)
    for name, value in (("dst", 1), ("src", 1), ("off", 3), ("imm", 3)):
        if name in row.uses or getattr(row, name, None) is not None:
            continue
        changed = insn._replace(**{name: value})
        if (row.name, name) == ("EXIT", "off"):
            assert changed.row is row, "the kernel does not look at it"
        else:
            assert changed.row is not row, f"{name} is reserved in {row.name}"


@pytest.mark.parametrize("row", extended.ROWS, ids=lambda row: row.name)
def test_extended_row_bits(row: Row) -> None:
    kind_of_class = {
        fields.LD: {Kind.PACKET, Kind.LOAD_IMM64}, fields.LDX: {Kind.LOAD}, fields.ST: {Kind.STORE},
        fields.STX: {Kind.STORE, Kind.ATOMIC}, fields.ALU: {Kind.ALU, Kind.SWAP}, fields.ALU64: {Kind.ALU, Kind.SWAP},
        fields.JMP: {Kind.JUMP, Kind.BRANCH, Kind.CALL, Kind.EXIT, Kind.MAY_GOTO},
        fields.JMP32: {Kind.JUMP, Kind.BRANCH},
    }  # fmt: skip
    assert row.kind in kind_of_class[fields.class_of(row.code)]
    if row.kind in (Kind.LOAD, Kind.STORE, Kind.ATOMIC, Kind.PACKET):
        assert row.size == fields.size_of(row.code)
    if row.kind in (Kind.ALU, Kind.BRANCH) and row.operation != "NEG":
        assert row.reg == bool(row.code & fields.X)


def test_the_versions_of_the_instruction_set_are_complete() -> None:
    assert {row.cpu for row in extended.ROWS} == {1, 2, 3, 4, 5}
    v4 = {row.operation for row in extended.ROWS if row.cpu == 4}
    assert v4 == {"SDIV", "SMOD", "MOVSX8", "MOVSX16", "MOVSX32", "BSWAP", "JA", "LDSX"}
    assert {row.operation for row in extended.ROWS if row.cpu == 5} == {"MAY_GOTO", "LOAD_ACQ", "STORE_REL"}


def test_walk_passes_over_second_slots() -> None:
    insns = (Insn(0x18, 1, imm=5), Insn(0, imm=6), Insn(0x95), Insn(0x18, 2))
    assert [(at, insn.code, high) for at, insn, high in extended.walk(insns)] == [
        (0, 0x18, 6),
        (2, 0x95, 0),
        (3, 0x18, 0),
    ]
