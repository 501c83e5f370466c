"""Loads from the kernel's structures by types made by hand: kinds of members, and trust in loaded pointers.

The live kernel judges the same code with its own types in test_verifier_kernel; it has no type tags.
"""

from __future__ import annotations

import errno

import pytest
from kernel_samples import Types, sample

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
