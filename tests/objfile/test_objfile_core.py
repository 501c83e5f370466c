"""CO-RE: every kind of relocation against a BTF with another layout, and the rules of what matches what."""

from __future__ import annotations

from pathlib import Path

import pytest

from pktbpf.errors import ObjectError
from pktbpf.objfile import load_object
from pktbpf.objfile.btf import Btf, BtfKind
from pktbpf.objfile.core_match import essential, fields_compatible, types_compatible, types_match
from pktbpf.objfile.core_relocate import POISON
from pktbpf.objfile.load import target_btf
from pktbpf.program import Program

SRC = Path(__file__).parent / "src"
# Tags of the instructions that libbpf 1.1 makes of core.o with core_target.o's BTF (btf_custom_path).
LIBBPF_TAGS = {"fields": "aea309dd9e5afb1d", "types": "80c6ec216d8f4c32", "loads": "018b18ad05f30fa0"}


def stored(program: Program) -> list[int]:
    """The constants a program stores, in order of their instructions."""
    values = []
    for slot, insn in enumerate(program.insns):
        if insn.code in (0xB7, 0xB4) and insn.dst == 2:
            values.append(insn.imm)
        elif insn.code == 0x18 and insn.src == 0:
            values.append(insn.imm | program.insns[slot + 1].imm << 32)
    return values


@pytest.mark.parametrize("name", LIBBPF_TAGS)
def test_instructions_are_libbpfs(name: str) -> None:
    assert load_object(SRC / "core.o", btf=SRC / "core_target.o")[name].tag == LIBBPF_TAGS[name]


def test_field_relocations() -> None:
    program = load_object(SRC / "core.o", btf=SRC / "core_target.o")["fields"]
    target = target_btf(SRC / "core_target.o")
    state = target.find("packet_state", BtfKind.STRUCT)
    assert state is not None
    at = {member.name: member.bit_offset // 8 for member in state.members if member.name}
    values = stored(program)
    assert values[:3] == [at["first"], at["count"], at["name"] + 3]
    assert at["list"] + 8 in values
    assert at["points"] + 16 + 12 in values


def test_unreachable_loads_are_poisoned() -> None:
    program = load_object(SRC / "core.o", btf=SRC / "core_target.o")["loads"]
    assert any(insn.code == 0x85 and insn.imm == POISON for insn in program.insns)
    # `count` shrank to 16 bits: the load shrinks with it
    assert any(insn.code == 0x69 for insn in program.insns)


def test_candidates_must_agree() -> None:
    """core.o has two flavors of packet_state: fitted to itself, the size of the type is ambiguous, as for libbpf."""
    with pytest.raises(ObjectError, match="candidates for 'packet_state' in the target BTF contradict each other"):
        load_object(SRC / "core.o", btf=SRC / "core.o")


def test_enumerators_at_the_edge_of_32_bits() -> None:
    """clang 14 does not say whether an enum is signed; the instruction itself does."""
    program = load_object(SRC / "special.o", btf=SRC / "special.o").program()
    wide = [
        insn.imm & 0xFFFFFFFF | (program.insns[slot + 1].imm & 0xFFFFFFFF) << 32
        for slot, insn in enumerate(program.insns)
        if insn.code == 0x18 and insn.src == 0
    ]
    assert wide == [0xFFFFFFFF_FFFFFFFB, 0x80000010]


def test_no_target() -> None:
    with pytest.raises(ObjectError, match="no BTF in this file"):
        load_object(SRC / "core.o", btf=_elf_without_btf())


def _elf_without_btf() -> Path:
    return next(path for path in (Path("/bin/true"), Path("/bin/ls")) if path.exists())


def test_target_bytes_and_damage() -> None:
    with pytest.raises(ObjectError, match="BTF magic is 0x6120"):
        load_object(SRC / "core.o", btf=b" a BTF in name only, longer than its header")
    with pytest.raises(ObjectError, match="shorter than its header"):
        load_object(SRC / "core.o", btf=b"")


def test_essential_names() -> None:
    assert essential("sk_buff___old") == "sk_buff"
    assert essential("sk_buff___old___er") == "sk_buff___old"
    assert essential("sk_buff__old") == "sk_buff__old"
    assert essential("___odd") == "___odd"
    assert essential("a___") == "a___"


@pytest.fixture(scope="module")
def tables() -> tuple[Btf, Btf]:
    return target_btf(SRC / "core.o"), target_btf(SRC / "core_target.o")


def ids(table: Btf, name: str) -> int:
    return table.by_name(name)[0]


def test_types_that_exist_and_types_that_match(tables: tuple[Btf, Btf]) -> None:
    local, target = tables
    state, color, handler = "packet_state", "color", "handler_t"
    for name in (state, color, handler):
        assert types_compatible(local, ids(local, name), target, ids(target, name))
        assert types_match(local, ids(local, name), local, ids(local, name))
    # the struct lost a field and changed others: it exists but does not match; the enum kept all names
    assert not types_match(local, ids(local, state), target, ids(target, state))
    assert types_match(local, ids(local, color), target, ids(target, color))
    # behind the pointer of the function's argument only name and kind of the struct count
    assert types_match(local, ids(local, handler), target, ids(target, handler))
    assert not types_match(local, ids(local, "missing_enum"), target, ids(target, color))
    assert not types_compatible(local, ids(local, state), target, ids(target, color))


def test_fields_that_can_stand_for_each_other(tables: tuple[Btf, Btf]) -> None:
    local, target = tables
    mine = {m.name: m.type for m in local.type(ids(local, "packet_state")).members}
    theirs = {m.name: m.type for m in target.type(ids(target, "packet_state")).members}
    for name in ("count", "name", "list", "next", "points", "small"):
        assert fields_compatible(local, mine[name], target, theirs[name]), name
    assert not fields_compatible(local, mine["count"], target, theirs["next"])
    assert not fields_compatible(local, mine["list"], target, theirs["count"])


@pytest.mark.kernel
def test_against_the_running_kernel() -> None:
    kernel = Path("/sys/kernel/btf/vmlinux")
    if not kernel.exists():
        pytest.skip("no /sys/kernel/btf/vmlinux")
    program = load_object(SRC / "core_kernel.o").program()
    table = target_btf(None)
    buff = table.find("sk_buff", BtfKind.STRUCT)
    kinds = table.find("bpf_map_type", BtfKind.ENUM)
    assert buff is not None
    assert kinds is not None
    ring = next(value.value for value in kinds.values if value.name == "BPF_MAP_TYPE_RINGBUF")
    values = stored(program)
    assert buff.size in values
    assert ring == 27
    assert ring in values
