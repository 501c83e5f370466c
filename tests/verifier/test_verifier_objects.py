"""Loads from the kernel's structures by types made by hand: kinds of members, and trust in loaded pointers.

The live kernel judges the same code with its own types in test_verifier_kernel; it has no type tags.
"""

from __future__ import annotations

import errno

import pytest
from kernel_samples import Types, sample

from pktbpf.asm.extended_text import assemble
from pktbpf.errors import ProgramRefused
from pktbpf.isa.extended import Insn as I
from pktbpf.objfile.btf import BtfKind
from pktbpf.program import Program
from pktbpf.verifier import verify
from pktbpf.verifier.errors import Refusal
from pktbpf.verifier.kernel_types import Kernel

# Structure, offset, size; what is there: scalar, memory, a structure behind a pointer, or the kernel's words.
PLACES = (
    ("task_struct", 0, 4, "scalar"),
    ("task_struct", 4, 4, "scalar"),
    ("task_struct", 2, 2, "scalar"),
    ("task_struct", 2, 4, "access beyond the end of member x (mend:4) in struct point with off 2 size 4"),
    ("task_struct", 0, 8, "access beyond the end of member x (mend:4) in struct point with off 0 size 8"),
    ("task_struct", 36, 4, "scalar"),
    ("task_struct", 40, 1, "scalar"),
    ("task_struct", 40, 2, "scalar"),
    ("task_struct", 41, 1, "struct task_struct doesn't have field at offset 41"),
    ("task_struct", 44, 4, "scalar"),
    ("task_struct", 46, 4, "access beyond the end of member name (mend:49) in struct task_struct with off 46 size 4"),
    ("task_struct", 50, 2, "struct task_struct doesn't have field at offset 50"),
    ("task_struct", 72, 8, "cell"),
    ("task_struct", 72, 4, "cannot access ptr member words with moff 72 in struct task_struct with off 72 size 4"),
    ("task_struct", 76, 8, "cannot access ptr member words with moff 72 in struct task_struct with off 76 size 8"),
    ("task_struct", 144, 8, "memory"),
    ("task_struct", 152, 8, "field forward doesn't have size"),
    ("task_struct", 156, 8, "access beyond struct task_struct at off 156 size 8"),
    ("task_struct", 4096, 1, "access beyond struct task_struct at off 4096 size 1"),
    ("grid", 24, 8, "point"),
    ("grid", 4096 + 16, 4, "scalar"),
    ("grid", 4096 + 8, 4, "cannot access ptr member next with moff 0 in struct cell with off 0 size 4"),
    ("grid", 4, 4, "struct grid doesn't have field at offset 4"),
    ("text", 99, 4, "scalar"),
    ("text", 3, 4, "access beyond struct text at off 3 size 4"),
    ("point", 8, 1, "access beyond struct point at off 8 size 1"),
    ("int", 0, 4, "Type 'int' is not a struct"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "offset", "size", "wanted"), PLACES)
def test_a_place_in_a_structure(name: str, offset: int, size: int, wanted: str) -> None:
    types = sample()
    try:
        found = Kernel(types).access(types.by_name(name)[0], offset, size)
        seen = types.type(found.id).name if found.what == "pointer" else found.what
    except Refusal as refused:
        (seen,) = refused.lines
    assert seen == wanted


def loaded(offset: int) -> tuple[I, ...]:
    """The current task, a pointer out of it in r1, a load through that: a pointer, of a point its four bytes."""
    through = 0x61 if offset == 56 else 0x79
    return (I(0x85, imm=158), I(0x79, 1, 0, offset), I(through, 2, 1, 0), I(0xB7, 0), I(0x95))


# What is loaded out of a trusted structure in a filter, which never sleeps: the register's kind as the log names it.
TRUST = (
    (56, "untrusted_ptr_point"),
    (64, "ptr_cell"),
    (80, "user_ptr_cell"),
    (88, "percpu_ptr_cell"),
    (96, "rcu_ptr_or_null_cell"),
    (104, "rcu_ptr_cell"),
    (112, "rcu_ptr_or_null_cell"),
    (120, "trusted_ptr_cell"),
    (128, "trusted_ptr_or_null_cell"),
    (136, "ptr_cell"),
    (144, "rdonly_untrusted_mem"),
)  # fmt: skip
REFUSED = {
    80: "R1 is ptr_cell access user memory: off=0",
    88: "R1 is ptr_cell access percpu memory: off=0",
    96: "R1 invalid mem access 'rcu_ptr_or_null_'",
    112: "R1 invalid mem access 'rcu_ptr_or_null_'",
    128: "R1 invalid mem access 'trusted_ptr_or_null_'",
}


@pytest.mark.parametrize(("offset", "kind"), TRUST)
def test_trust_in_a_loaded_pointer(offset: int, kind: str) -> None:
    verdict: tuple[int, int | None, str] | None = None
    try:
        log = verify(Program(loaded(offset)), kernel_btf=sample(), log_level=2).log
    except ProgramRefused as refused:
        verdict = refused.errno, refused.insn, refused.reason
        log = str(getattr(refused, "log", ""))
    assert verdict == ((errno.EACCES, 2, REFUSED[offset]) if offset in REFUSED else None)
    line = next(line for line in log.splitlines() if line.startswith("1: (79)"))
    assert f"R1={kind}(" in line


def test_without_types_the_layout_is_not_known() -> None:
    with pytest.raises(ProgramRefused) as refused:
        verify(Program(loaded(64)))
    assert (refused.value.errno, refused.value.insn) == (errno.EOPNOTSUPP, 1)


def test_types_that_never_end_are_survived() -> None:
    types = Types()
    first = types.add(BtfKind.TYPEDEF, "loop", ref=1)
    types.struct("task_struct", 8, ("loop", first, 0))
    with pytest.raises(ProgramRefused) as refused:
        verify(Program(loaded(0)), kernel_btf=types)
    assert refused.value.errno in (errno.EFAULT, errno.EOPNOTSUPP)
    inside = Types()
    inside.struct("task_struct", 8, ("self", 1, 0))
    with pytest.raises(ProgramRefused) as refused:
        verify(Program(loaded(0)), kernel_btf=inside)
    assert refused.value.errno == errno.EOPNOTSUPP


# Variables: text of a program and the kernel's refusal, None where it is accepted. Those of processors were asked of a
# 6.18 kernel with CONFIG_KALLSYMS_ALL, whose variables are of other types; its BTF has no variables but these.
VARIABLES = (
    ("r1 = ksym[counter] ll; call bpf_this_cpu_ptr; r0 = *(u32 *)(r0 +0)", None),
    ("r1 = ksym[counter] ll; call bpf_this_cpu_ptr; r0 = *(u64 *)(r0 +0)",
     "3: invalid access to memory, mem_size=4 off=0 size=8"),
    ("r1 = ksym[counter] ll; call bpf_this_cpu_ptr; *(u32 *)(r0 +0) = 1", "3: R0 cannot write into rdonly_mem"),
    ("r1 = ksym[counter] ll; r0 = *(u32 *)(r1 +0)", "2: R1 is ptr_int access percpu memory: off=0"),
    ("r1 = ksym[counter] ll; r1 += 4; call bpf_this_cpu_ptr",
     "3: dereference of modified percpu_ptr_ ptr R1 off=4 disallowed"),
    ("r1 = ksym[numbers] ll; call bpf_this_cpu_ptr; r0 = *(u64 *)(r0 +4)", None),
    ("r1 = ksym[here] ll; r2 = 0; call bpf_per_cpu_ptr; r0 = *(u32 *)(r0 +8)",
     "4: R0 invalid mem access 'ptr_or_null_'"),
    ("r1 = ksym[here] ll; call bpf_this_cpu_ptr; r1 = *(u64 *)(r0 +0); r0 = *(u32 *)(r1 +4)", None),
    ("r1 = ksym[here] ll; call bpf_this_cpu_ptr; *(u32 *)(r0 +8) = 1", "3: only read is supported"),
    ("r1 = ksym[there] ll; call bpf_this_cpu_ptr; r0 = *(u32 *)(r0 +4)", None),
    ("r1 = ksym[there] ll; call bpf_this_cpu_ptr; r0 = *(u32 *)(r0 +8)",
     "3: access beyond struct point at off 8 size 4"),
    ("r1 = ksym[current_cell] ll; call bpf_this_cpu_ptr; r0 = *(u64 *)(r0 +0)", None),
    ("r1 = ksym[total] ll; r0 = *(u32 *)(r1 +0)", None),
    ("r1 = ksym[total] ll; call bpf_this_cpu_ptr",
     "2: R1 type=rdonly_mem expected=percpu_ptr_, percpu_rcu_ptr_, percpu_trusted_ptr_"),
    ("r1 = ksym[origin] ll; r2 = *(u64 *)(r1 +0); r0 = *(u32 *)(r2 +0)", None),
    ("r1 = ksym[kernel_function] ll; r0 = *(u8 *)(r1 +0)", "2: invalid access to memory, mem_size=0 off=0 size=1"),
    ("r1 = ksym[missing] ll", "0: extern (var ksym) 'missing': not found in kernel BTF"),
    (".weak missing; r1 = ksym[missing] ll; if r1 == 0 goto +1; r0 = *(u8 *)(r1 +0)", None),
    ("r1 = btf_id[1] ll", "0: pseudo btf_id 1 in ldimm64 isn't KIND_VAR or KIND_FUNC"),
    ("r1 = btf_id[9999] ll", "0: ldimm64 insn specifies invalid btf_id 9999."),
)  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), VARIABLES)
def test_variables_of_the_kernel(text: str, wanted: str | None) -> None:
    program = assemble(text.replace("; ", "\n") + "\nr0 = 0\nexit\n")
    try:
        verify(program, kernel_btf=sample())
        seen = None
    except ProgramRefused as refused:
        seen = f"{refused.insn}: {refused.reason}"
    assert seen == wanted


def test_a_kernel_that_does_not_list_a_variable() -> None:
    program = assemble("r1 = ksym[counter] ll\nr0 = 0\nexit\n")
    assert verify(program, kernel_btf=sample(), kernel_symbols={"counter"}).program is program
    with pytest.raises(ProgramRefused) as refused:
        verify(program, kernel_btf=sample(), kernel_symbols={"total"})
    wanted = "ldimm64 failed to find the address for kernel symbol 'counter'."
    assert (refused.value.errno, refused.value.reason) == (errno.ENOENT, wanted)
    with pytest.raises(ProgramRefused, match="the kernel's variable 'counter', whose type is not known"):
        verify(program)
