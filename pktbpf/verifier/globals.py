"""Functions with global linkage: calls are checked against their types only, each is then verified on its own.

Mirrors btf_check_func_arg_match, btf_prepare_func_args and do_check_subprogs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.abi.helpers import Arg
from pktbpf.abi.kernel_structs import REFERENCED
from pktbpf.verifier import arguments, dynptrs, kernel_objects, scalar
from pktbpf.verifier.branches import not_null
from pktbpf.verifier.errors import Refusal, denied, invalid, refuse, unsupported
from pktbpf.verifier.state import (
    BTF,
    CTX,
    DYNPTR,
    MEM,
    OR_NULL,
    RCU,
    RDONLY,
    SCALAR,
    STACK,
    TRUSTED,
    UNTRUSTED,
    Frame,
    Reg,
    kind_text,
)

if TYPE_CHECKING:
    from pktbpf.verifier.types import FunctionType, Problem
    from pktbpf.verifier.walk import Walk

_DYNPTR = Arg("dynptr", rdonly=True)


def match(walk: Walk, found: FunctionType) -> Problem | None:
    """What is wrong with the arguments of a call, in the kernel's words; None if they fit."""
    if found.problem is not None:
        return found.problem[0], (found.problem[1],)
    try:
        for number, word in enumerate(found.args, 1):
            _match_argument(walk, number, word)
    except Refusal as problem:
        if problem.unsupported:
            raise
        return problem.errno, problem.lines
    return None


def _match_argument(walk: Walk, number: int, word: str) -> None:
    reg = walk.regs[number]
    kind, _, rest = word.partition(":")
    if kind == "int":
        if reg.kind != SCALAR:
            invalid(f"R{number} is not a scalar")
    elif kind == "ctx":
        arguments.check_offset(walk, reg, number)
        if reg.kind != CTX:
            invalid(f"arg#{number - 1} expects pointer to ctx")
    elif kind == "mem":
        size, _, nonnull = rest.partition(":")
        arguments.check_offset(walk, reg, number)
        _match_memory(walk, number, int(size))
        if nonnull and reg.kind & OR_NULL:
            invalid(f"arg#{number - 1} is expected to be non-NULL")
    elif kind == "dynptr":
        _match_dynptr(walk, number, reg)
    elif kind == "arena":
        if reg.kind != SCALAR:
            invalid(f"R{number} is not a pointer to arena or scalar.")
    elif kind == "trusted":
        _match_trusted(walk, number, *rest.split(":"))
    elif kind == "untrusted":
        _structure(walk, number, rest)


def _match_dynptr(walk: Walk, number: int, reg: Reg) -> None:
    if reg.kind != STACK:
        arguments.check_offset(walk, reg, number)
    if reg.kind not in (STACK, DYNPTR):
        invalid(f"arg#{number - 1} expected pointer to stack or const struct bpf_dynptr")
    dynptrs.argument(walk, number, _DYNPTR)


def _structure(walk: Walk, number: int, name: str) -> None:
    """An argument's type names a structure of the kernel."""
    if name in REFERENCED:
        return
    if walk.kernel is None:
        unsupported(f"whether the kernel has a 'struct {name}'")
    if not walk.kernel.struct(name):
        refuse(errno.ENOENT, f"arg#{number - 1} reference type('STRUCT {name}') has no matches")


def _match_trusted(walk: Walk, number: int, name: str, nullable: str = "") -> None:
    _structure(walk, number, name)
    reg = walk.regs[number]
    if reg.is_null and nullable:
        return
    kind = reg.kind & ~OR_NULL if nullable else reg.kind
    if kind not in (BTF, BTF | TRUSTED, BTF | RCU):
        denied(f"R{number} type={kind_text(reg.kind)} expected=ptr_, trusted_ptr_, rcu_ptr_")
    lines = kernel_objects.mismatch(walk, reg, name)
    if lines is not None:
        denied(*lines, f"R{number} is of type {reg.obj} but {name} is expected")
    arguments.check_offset(walk, reg, number)


def _match_memory(walk: Walk, number: int, size: int) -> None:
    """Null, or memory that may be read and written."""
    reg = walk.regs[number]
    if reg.is_null:
        return
    if reg.kind & OR_NULL:
        walk.regs[number] = not_null(reg)
    try:
        for write in (False, True):
            arguments.check_memory(walk, number, size, write=write, zero_allowed=True, call=None, raw=False)
    except Refusal as problem:
        if problem.unsupported:
            raise
        raise Refusal(errno.EINVAL, *problem.lines) from None
    finally:
        walk.regs[number] = reg


def verify_called(walk: Walk) -> None:
    """Verify every global function that a verified one calls, in rounds over all of them. Fails with a Refusal."""
    done: set[int] = set()
    while True:
        before = len(done)
        for number in range(1, len(walk.layout.functions)):
            if number in walk.types.called - done and walk.types.is_global(number):
                _verify_one(walk, number)
                done.add(number)
        if len(done) == before:
            return


def _verify_one(walk: Walk, number: int) -> None:
    found = walk.types.of(number)
    assert found is not None
    walk.note(f"Validating {found.name}() func#{number}...")
    frame = Frame(-1, 0, number, walk.unset)
    for register, word in enumerate(found.args, 1):
        frame.regs[register] = _argument(walk, word)
    walk.start(number, frame)
    walk.run()
    walk.note(f"Func#{number} ('{found.name}') is safe for any args that match its prototype")


def _argument(walk: Walk, word: str) -> Reg:
    """What a global function may expect of an argument, whoever calls it."""
    kind, _, rest = word.partition(":")
    if kind in ("int", "arena"):
        return walk.unknown
    if kind == "ctx":
        return Reg(CTX)
    if kind == "dynptr":
        return Reg(DYNPTR, id=walk.new_id(), obj=("local", True))
    if kind == "rdonly":
        return Reg(MEM | RDONLY | UNTRUSTED, obj=0)
    if kind == "trusted":
        name, _, nullable = rest.partition(":")
        return Reg(BTF | TRUSTED | (OR_NULL if nullable else 0), id=walk.new_id(), obj=name)
    if kind == "untrusted":
        return Reg(BTF | UNTRUSTED, id=walk.new_id(), obj=rest)
    size, _, nonnull = rest.partition(":")
    if nonnull:
        return Reg(MEM, obj=int(size))
    return Reg(MEM | OR_NULL, 0, scalar.ZERO, walk.new_id(), obj=int(size))
