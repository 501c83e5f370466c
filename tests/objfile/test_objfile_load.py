"""Objects built by clang 14: programs, maps, variables, calls, names, as libbpf and the kernel make them."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_samples import Types, sample

from pktbpf.asm.extended_text import assemble, disassemble
from pktbpf.engine.base import Env
from pktbpf.errors import ObjectError, ProgramRefused, UsageError
from pktbpf.filter import Filter, verify
from pktbpf.isa.extended import Insn
from pktbpf.objfile import MapDefinition, Object, ProgramRef, load_object
from pktbpf.objfile.btf import BtfKind
from pktbpf.program import MapSpec, Program, ValueField

SRC = Path(__file__).parent / "src"
FILTERS = Path(__file__).parents[2] / "filters" / "ebpf"

# Tags that Linux 6.18 shows for these programs after `bpftool prog load`, hence libbpf's instructions to the last bit.
KERNEL_TAGS = {
    "allow_lpm": {"allow_lpm": "bda903627af62b32"},
    "dest_bytes": {"dest_bytes": "1cc69343b9bf83c3"},
    "parser_chain": {
        "parser_chain": "80a7cfe002924278",
        "parse_vlan": "6d5eed4f9a331c31",
        "parse_mpls": "e068c047bcc5bbfc",
        "parse_ip": "66cdbd36aeacf94d",
        "parse_ip6": "721e3f74e47c8dd0",
    },
    "proto_counts": {"proto_counts": "795b7bfd8de79ab4"},
    "rate_limit": {"rate_limit": "cd09514d442f37ea"},
    "sampler_ringbuf": {"sampler": "79f111f57188754d"},
    "calls": {"first": "86f759e809c1d7b3", "second": "0685971ea93b82c2", "third": "fb62288e5cac93fa"},
    "globals": {"globals": "d78977605e62eb30"},
    "mapkinds": {"mapkinds": "39b8e67405807b5d"},
}


def load(name: str, **kwargs: object) -> Object:
    path = FILTERS / f"{name}.o"
    found = load_object(path if path.exists() else SRC / f"{name}.o", **kwargs)  # type: ignore[call-overload]
    assert isinstance(found, Object)
    return found


@pytest.mark.parametrize("name", KERNEL_TAGS)
def test_instructions_are_libbpfs(name: str) -> None:
    assert {key: program.tag for key, program in load(name).programs.items()} == KERNEL_TAGS[name]


@pytest.mark.parametrize("name", KERNEL_TAGS)
def test_listing_assembles_again(name: str) -> None:
    for program in load(name).programs.values():
        again = assemble(disassemble(program, declare=True, opcodes=True))
        assert again.insns == program.insns
        assert set(again.maps) == set(program.maps)


def test_names_and_sections() -> None:
    found = load("names")
    assert list(found.programs) == ["by_long_name", "same_section", "by_short_name", "numbered", "optional"]
    assert found.others == {"other_type": "xdp"}
    assert found.license == ""
    assert found["same_section"].insns == (Insn(0xB4, imm=4), Insn(0x95))
    with pytest.raises(UsageError, match=r"5 programs, choose one with --program NAME: by_long_name, same_section"):
        found.program()
    with pytest.raises(ObjectError, match="'other_type' is in section 'xdp', no socket filter"):
        found["other_type"]
    with pytest.raises(UsageError, match="no program 'nothing'; there are by_long_name"):
        found["nothing"]
    assert load_object(SRC / "names.o", program="numbered").name == "numbered"
    with pytest.raises(ObjectError, match=r'no socket filter; mark the function with SEC\("socket"\)'):
        load("core_target").program()


def test_called_functions_are_appended_in_the_order_of_calls() -> None:
    found = load("calls")
    names = [
        {slot: info.name for slot, info in found[name].btf.functions.items()} for name in ("first", "second", "third")
    ]
    assert list(names[0].values()) == ["first", "unused_by_second", "middle", "leaf", "concealed"]
    assert list(names[1].values()) == ["second", "concealed", "leaf", "middle"]
    assert list(names[2].values()) == ["third", "sum_one", "count_down", "leaf"]
    third = found["third"]
    pointers = [(slot, insn) for slot, insn in enumerate(third.insns) if insn.code == 0x18 and insn.src == 4]
    starts = {name: slot for slot, name in names[2].items()}
    assert [slot + 1 + insn.imm for slot, insn in pointers] == [starts["sum_one"], starts["count_down"]]
    assert all(third.insns[slot].imm for slot, _ in pointers)
    assert len(third.btf.func_info) == 4 * 8
    assert len(third.btf.line_info) == 16 * len(third.btf.lines)


def test_source_lines() -> None:
    program = load("proto_counts").program()
    text = program.lines[len(program) - 1]
    assert text.startswith("./filters/ebpf/proto_counts.c:")
    assert any(line.endswith("__sync_fetch_and_add(count, 1);") for line in program.lines.values())
    assert set(program.lines) == set(range(len(program)))


def test_data_sections() -> None:
    found = load("globals")
    rodata, data, bss = (found.maps[name] for name in (".rodata", ".data", ".bss"))
    assert (rodata.kind, rodata.key_size, rodata.max_entries, rodata.flags) == ("ARRAY", 4, 1, 0x480)
    assert rodata.frozen
    assert not data.frozen
    assert (rodata.kernel_name, data.kernel_name, bss.kernel_name) == ("globals.rodata", "globals.data", "globals.bss")
    assert found.maps[".rodata.magic"].kernel_name == ".rodata.magic"
    assert found.maps[".rodata.magic"].frozen
    assert bss.initial == bytes(bss.value_size)
    program = found.program()
    used = {spec.name for spec in program.maps.values()}
    assert used == {".rodata", ".data", ".bss", ".data.tuned", ".rodata.magic"}
    for slot, spec in program.maps.items():
        assert program.insns[slot].src == 2
        assert 0 <= program.insns[slot + 1].imm < spec.value_size
    assert bss.value_type is not None
    assert set(bss.value_type.decode(bss.initial)) == {"total", "hidden_zero"}


def test_variables_are_typed() -> None:
    found = load("globals")
    assert found.value("threshold") == 100
    assert found.value("mode") == 1
    assert found.value("enabled") is True
    assert found.value("label") == "first"
    assert found.value("table") == [-1, 2, -3, 4]
    assert found.value("table[2]") == -3
    assert found.value("hidden_counter") == 3
    assert found.value("tuned") == 42
    assert found.value("magic") == 0x5A
    limits = found.value("limits")
    assert limits["high"] == 0x1234
    assert (limits["offset"], limits["flags"], limits["rest"]) == (-5, 5, 0)
    assert limits["u"] == {"word": 0x01020304, "bytes": [4, 3, 2, 1]}
    assert str(found.variables["mode"].type) == "const volatile enum mode"
    assert str(found.variables["table"].type) == "const volatile __s64[4]"


def test_variables_can_be_set() -> None:
    found = load("globals")
    changed = found.with_values(
        {
            "threshold": "0x20",
            "mode": "MODE_DROP",
            "enabled": "false",
            "label": "second",
            "table[1]": -9,
            "limits.u.bytes[3]": 255,
            "limits.flags": 2,
            "tuned": 1 << 63,
        }
    )
    assert changed.value("threshold") == 32
    assert changed.value("mode") == 7
    assert changed.value("enabled") is False
    assert changed.value("label") == "second"
    assert changed.value("table") == [-1, -9, -3, 4]
    assert changed.value("limits.u.word") == 0xFF020304
    assert changed.value("limits")["flags"] == 2
    assert changed.value("limits")["rest"] == 0
    assert changed.value("limits")["low"] == 1
    assert changed.value("tuned") == 1 << 63
    assert found.value("threshold") == 100
    program = changed.program()
    assert program.insns == found.program().insns
    assert {spec.initial for spec in program.maps.values()} == {spec.initial for spec in changed.maps.values()}
    whole = found.with_values({"limits": '{"low": 9, "u": {"word": 7}}', "table": [1, 2]})
    assert whole.value("limits")["low"] == 9
    assert whole.value("limits")["high"] == 0x1234
    assert whole.value("table") == [1, 2, -3, 4]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("nothing", 1, "no global variable 'nothing'; there are enabled, hidden_counter"),
        ("threshold", 1 << 32, "is not in 0..4294967295"),
        ("threshold", "many", "takes a number"),
        ("threshold", 1.5, "whole number"),
        ("mode", "MODE_NONE", "takes a number"),
        ("table[4]", 1, "has no element 4"),
        ("limits.nothing", 1, "no field 'nothing'"),
        ("limits.flags", 8, "is not in 0..7"),
        ("label", "more than sixteen bytes", "do not fit in 16"),
        ("table", [1, 2, 3, 4, 5], "at most 4"),
        ("limits", "{", "takes JSON"),
        ("limits", {"nothing": 1}, "no field 'nothing'"),
        ("limits!", 1, "no global variable 'limits!'"),
    ],
)
def test_values_that_do_not_fit(name: str, value: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason.replace("[", "\\[")):
        load("globals").with_values({name: value})


def test_program_array_with_first_contents() -> None:
    found = load("parser_chain")
    layers = found.maps["layers"]
    assert (layers.kind, layers.key_size, layers.value_size, layers.max_entries) == ("PROG_ARRAY", 4, 4, 4)
    assert [layers.slots[i].name for i in range(4)] == ["parse_vlan", "parse_mpls", "parse_ip", "parse_ip6"]
    for target in layers.slots.values():
        assert isinstance(target, ProgramRef)
        assert target.program is found[target.name]
    (used,) = set(found["parse_vlan"].maps.values())
    assert used.slots[2].program is found["parse_ip"]
    again = found.with_values({})
    assert again.maps["layers"].slots[0].program is again["parse_vlan"]  # type: ignore[union-attr]


def test_map_definitions() -> None:
    maps = load("mapkinds", cpus=6).maps
    assert {name: (m.kind, m.key_size, m.value_size, m.max_entries, m.flags, m.extra) for name, m in maps.items()} == {
        "inner_a": ("ARRAY", 4, 8, 4, 0, 0),
        "inner_b": ("ARRAY", 4, 8, 4, 0, 0),
        "outer_array": ("ARRAY_OF_MAPS", 4, 4, 4, 0, 0),
        "outer_hash": ("HASH_OF_MAPS", 4, 4, 8, 0, 0),
        "events": ("PERF_EVENT_ARRAY", 4, 4, 6, 0, 0),
        "ring": ("RINGBUF", 0, 0, 8192, 0, 0),
        "bloom": ("BLOOM_FILTER", 0, 8, 100, 0, 3),
        "queue": ("QUEUE", 0, 4, 10, 0, 0),
        "pinned": ("LRU_HASH", 16, 16, 1000, 4, 0),
    }
    assert isinstance(maps["inner_a"], MapSpec)
    outer = maps["outer_array"]
    assert outer.inner == MapDefinition("ARRAY", 4, 8, 4, name="outer_array.inner", section=".maps",
                                        key_type_id=outer.inner.key_type_id, value_type_id=outer.inner.value_type_id,
                                        kernel_name="outer_array.inn")  # fmt: skip
    assert {i: target.name for i, target in outer.slots.items()} == {0: "inner_a", 2: "inner_b", 3: "inner_a"}
    inner = maps["outer_hash"].inner
    assert inner is not None
    assert (inner.kind, inner.key_size, inner.value_size, inner.max_entries) == ("HASH", 2, 6, 32)
    assert (maps["pinned"].pinning, maps["pinned"].numa_node) == (1, 0)
    assert (maps["queue"].value_type_id, maps["events"].key_type_id) == (0, 0)


def test_legacy_maps() -> None:
    found = load("legacy")
    first, second = found.maps["first_map"], found.maps["second_map"]
    assert (first.kind, first.key_size, first.value_size, first.max_entries, first.flags) == ("HASH", 4, 8, 128, 1)
    assert (second.kind, second.key_size, second.value_size, second.max_entries) == ("ARRAY", 4, 8, 4)
    assert str(first.value_type) == "struct pair"
    assert second.value_type is None
    assert {spec.name for spec in found.program().maps.values()} == {"first_map", "second_map"}


def test_externs() -> None:
    config = {"LINUX_KERNEL_VERSION": str(0x061200), "CONFIG_NET": "y"}
    found = load("externs", kconfig=config)
    program = found.program()
    kconfig = found.maps[".kconfig"]
    assert (kconfig.flags, kconfig.frozen, kconfig.value_size) == (0x480, True, 9)
    assert kconfig.initial == (1).to_bytes(4, "little") + (0x061200).to_bytes(4, "little") + b"\0"
    symbol = next(insn for slot, insn in enumerate(program.insns) if insn.code == 0x18 and slot not in program.maps)
    assert symbol[1:] == (symbol.dst, 0, 0, 0)
    assert Insn(0x85, 0, 2, 0, 0) in program.insns
    with pytest.raises(ObjectError, match="'LINUX_KERNEL_VERSION': the kernel configuration has no such value"):
        load("externs", kconfig={})
    with pytest.raises(ObjectError, match="extern 'bpf_frobnicate', a kernel function, means nothing off a kernel"):
        load("strong_extern")


def test_big_endian_is_refused() -> None:
    with pytest.raises(ObjectError, match="a big-endian object"):
        load("big_endian")


def test_data_types_speak_json() -> None:
    flows = load("dest_bytes").maps["flows"]
    assert flows.value_type is not None
    assert flows.key_type is not None
    raw = (3).to_bytes(8, "little") + (4096).to_bytes(8, "little")
    assert flows.value_type.decode(raw) == {"packets": 3, "bytes": 4096}
    assert json.loads(json.dumps(flows.value_type.decode(raw))) == flows.value_type.decode(raw)
    assert flows.value_type.encode({"packets": 3, "bytes": "0x1000"}) == raw
    assert flows.value_type.encode({"bytes": 1}) == bytes(8) + (1).to_bytes(8, "little")
    assert flows.key_type.encode(0x0A000001) == b"\x01\x00\x00\x0a"
    with pytest.raises(ValueError, match="has 16 bytes, not 3"):
        flows.value_type.decode(b"abc")
    with pytest.raises(UsageError, match="is not in 0"):
        flows.key_type.encode(-1)


def test_special_fields_of_values() -> None:
    maps = load("special", btf=SRC / "special.o").maps
    assert maps["locked"].fields == (ValueField("spin_lock", 4, 4),)
    # Two timers are one too many: the kernel then sees no special field at all.
    assert maps["timed"].fields == ()
    assert maps[".bss"].fields == ()
    assert maps["locked"].has_btf
    assert not load("mapkinds").maps["queue"].has_btf


def test_function_types() -> None:
    functions = {info.name: info for info in load("calls")["third"].btf.functions.values()}
    assert functions["third"].args == ("ctx",)
    assert functions["third"].linkage == "global"
    # Pointers of static functions say nothing to the kernel.
    assert functions["count_down"].problem == (errno.EINVAL, "")
    assert functions["count_down"].linkage == "static"
    first = {info.name: info for info in load("calls")["first"].btf.functions.values()}
    assert first["middle"].linkage == "global"
    assert first["concealed"].linkage == "static", "a hidden function is verified like a static one"
    assert all(info.returns_int for info in first.values())


def without_btf(name: str) -> bytes:
    """The object as clang without -g makes it: its BTF sections go by another name."""
    path = FILTERS / f"{name}.o"
    raw = (path if path.exists() else SRC / f"{name}.o").read_bytes()
    return raw.replace(b".BTF\0", b".XTF\0").replace(b".BTF.ext\0", b".XTF.ext\0")


def test_objects_without_btf() -> None:
    found = load_object(without_btf("globals"), path="plain.o")
    assert found.program().insns == load("globals").program().insns
    assert found.program().btf is None
    assert not found.program().lines
    assert found.value("threshold") == 100
    assert found.value("magic") == 0x5A
    assert found.value("label") == b"first".ljust(16, b"\0")
    changed = found.with_values({"threshold": "0x10", "label": b"sixteen bytes !!", "mode": -1})
    assert changed.value("threshold") == 16
    assert changed.value("label") == b"sixteen bytes !!"
    assert changed.value("mode") == 0xFFFFFFFF
    with pytest.raises(UsageError, match=r"has no BTF to know '\.low' from"):
        found.with_values({"limits.low": 1})
    with pytest.raises(UsageError, match="'much' does not fit in 4 bytes"):
        found.with_values({"threshold": "much"})
    with pytest.raises(UsageError, match="3 bytes do not fit in 4"):
        found.with_values({"threshold": b"abc"})
    legacy = load_object(without_btf("legacy"))
    assert legacy.maps["first_map"].value_type is None
    assert legacy.program().insns == load("legacy").program().insns
    with pytest.raises(ObjectError, match="BTF-defined maps without BTF; build with clang -g"):
        load_object(without_btf("proto_counts"))


def test_import_is_cheap() -> None:
    code = (
        "import sys, pktbpf.objfile, pktbpf.cli.compile_c\n"
        "assert not {'numba', 'numpy', 'elftools'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernel_functions_go_by_name() -> None:
    program = load_object(FILTERS / "tcp_options.o", program="tcp_options")
    assert isinstance(program, Program)
    assert set(program.kfuncs.values()) == {
        "bpf_dynptr_from_skb", "bpf_dynptr_slice", "bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy",
    }  # fmt: skip
    assert all(program.insns[slot].src == 2 for slot in program.kfuncs)


def test_variables_of_the_kernel_go_by_name() -> None:
    kernel = sample().btf()
    found = load("kernel_vars", btf=kernel.raw)
    active, processors = (found.programs[name] for name in ("active", "processors"))
    assert [(v.name, v.weak, str(v.declared)) for v in active.kvars.values()] == [
        ("bpf_prog_active", False, "const int"), ("no_such_variable", True, "const int"),
    ]  # fmt: skip
    assert [(v.name, v.weak) for v in processors.kvars.values()] == [("runqueues", True)]
    assert all(program.insns[slot].src == 3 for program in (active, processors) for slot in program.kvars)
    env = Env(kernel_btf=kernel, cpu=2, variables={"runqueues[2].cpu": 5, "runqueues[1].cpu": 1, "bpf_prog_active": 7})
    assert Filter(processors, env=env, engine="reference").run(bytes(60)) == 0b100011
    assert Filter(active, env=env, engine="reference").run(bytes(60)) == 107


def test_variables_of_another_type_are_refused_as_libbpf_does() -> None:
    other = Types()
    other.per_cpu(bpf_prog_active=other.struct("counter", 4, ("n", other.add(BtfKind.INT, "int", size=4, bits=32), 0)))
    kernel = other.btf()
    active = load("kernel_vars", btf=sample().btf().raw).programs["active"]
    words = r"'bpf_prog_active': incompatible types, expected const int, but kernel has struct counter \(EINVAL\)"
    with pytest.raises(ProgramRefused, match=words):
        verify(active, kernel_btf=kernel)
