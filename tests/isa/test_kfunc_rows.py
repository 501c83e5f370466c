"""The rows of kernel functions: what they say of prototypes and permission is what the live kernel says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pktbpf.abi import kfuncs
from pktbpf.errors import KernelUnavailable
from pktbpf.isa.extended import Insn, encode_all
from pktbpf.kernel import syscall
from pktbpf.objfile.btf import ENUMS, Btf, BtfKind, BtfType

VMLINUX = Path("/sys/kernel/btf/vmlinux")
SUFFIXES = {"__sz": "sz", "__szk": "szk", "__k": "const", "__ign": "ign", "__map": "map", "__str": "str",
            "__irq_flag": "irq", "__prog": "prog"}  # fmt: skip
STRUCTS = {"__sk_buff": "ctx", "bpf_dynptr": "dynptr", "bpf_wq": "wq", "bpf_res_spin_lock": "lock",
           "bpf_task_work": "mem"}  # fmt: skip


@pytest.fixture(scope="module")
def types() -> Btf:
    try:
        syscall.available()
    except KernelUnavailable as why:
        pytest.skip(f"the live kernel cannot be asked: {why}")
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 18):
        pytest.skip("the rows are those of Linux 6.18")
    return Btf.parse(VMLINUX.read_bytes(), str(VMLINUX))


def marked(types: Btf) -> dict[str, BtfType]:
    """Every function with the declaration tag of a kfunc, by name."""
    tags = (types.type(number) for number in types.by_name("bpf_kfunc"))
    functions = (types.type(tag.ref) for tag in tags if tag.kind is BtfKind.DECL_TAG)
    return {function.name: function for function in functions}


def kind_of(types: Btf, name: str, number: int) -> str:
    """What a parameter is in the words of `Param.kind`, from its name and type."""
    for suffix, kind in SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    found = types.resolve(number)
    if found.kind is BtfKind.INT or found.kind in ENUMS:
        return "scalar"
    target = types.resolve(found.ref)
    if target.kind is BtfKind.FUNC_PROTO:
        return "callback"
    if target.kind is BtfKind.STRUCT and target.name.startswith("bpf_iter_"):
        return f"iter:{target.name.removeprefix('bpf_iter_')}"
    if target.kind is BtfKind.STRUCT:
        return STRUCTS.get(target.name, f"struct:{target.name}")
    return "buf"


@pytest.mark.kernel
def test_every_marked_function_is_known(types: Btf) -> None:
    assert set(marked(types)) == set(kfuncs.BY_NAME) | kfuncs.OTHERS


@pytest.mark.kernel
def test_parameters_are_those_of_the_prototypes(types: Btf) -> None:
    functions = marked(types)
    for row in kfuncs.ROWS:
        if row.name.startswith("bpf_xdp_metadata") or row.name == "bpf_cast_to_kern_ctx":
            continue  # refused before their arguments are looked at; takes the context whatever its type says
        prototype = types.type(functions[row.name].ref)
        found = [kind_of(types, p.name, p.type) for p in prototype.params]
        said = [f"{p.kind}:{p.of}" if p.kind in ("iter", "struct") else p.kind for p in row.params]
        # Memory of one object and memory with a size after it differ in the next parameter only.
        assert [kind.replace("mem", "buf") for kind in said] == [kind.replace("mem", "buf") for kind in found], row.name
        nothing = types.resolve(prototype.ref).kind is BtfKind.VOID
        assert (row.ret == "void") == nothing, row.name


@pytest.mark.kernel
def test_the_kernel_lets_a_socket_filter_call_the_rows_only(types: Btf) -> None:
    for name, function in marked(types).items():
        code = encode_all((Insn(0x85, 0, 2, 0, function.id), Insn(0xB7), Insn(0x95)))
        try:
            os.close(syscall.load_program(code))
            log = ""
        except syscall.LoadRefused as refused:
            log = refused.log
        denied = f"calling kernel function {name} is not allowed" in log
        assert denied == (name in kfuncs.OTHERS), f"{name}: {log}"
        sleeps = f"program must be sleepable to call sleepable kfunc {name}" in log
        assert sleeps == (name in kfuncs.BY_NAME and kfuncs.BY_NAME[name].has("sleeps")), f"{name}: {log}"


@pytest.mark.kernel
def test_iterators_are_as_large_as_the_kernels(types: Btf) -> None:
    for name, slots in kfuncs.ITERATOR_SLOTS.items():
        found = types.find(f"bpf_iter_{name}", BtfKind.STRUCT)
        assert found is not None
        assert found.size == 8 * slots
