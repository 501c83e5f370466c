"""Functions with global linkage: calls are checked against their types only, each is then verified on its own.

Mirrors btf_check_func_arg_match, btf_prepare_func_args and do_check_subprogs.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from pktbpf.verifier import arguments, memory, scalar
from pktbpf.verifier.branches import not_null
from pktbpf.verifier.errors import Refusal, invalid
from pktbpf.verifier.state import CTX, MEM, OR_NULL, SCALAR, Frame, Reg

if TYPE_CHECKING:
    from pktbpf.verifier.types import FunctionType, Problem
    from pktbpf.verifier.walk import Walk

_MAX_ARGS = 5


def match(walk: Walk, found: FunctionType) -> Problem | None:
    """What is wrong with the arguments of a call, in the kernel's words; None if they fit."""
    try:
        _prepare(found)
        for number, kind in enumerate(found.args, 1):
            _match_argument(walk, number, kind)
    except Refusal as problem:
        if problem.unsupported:
            raise
        return errno.EINVAL, problem.lines
    return None


def _prepare(found: FunctionType) -> None:
    """A global function returns an int and takes at most five arguments of known kinds."""
    if len(found.args) > _MAX_ARGS:
        invalid(f"Global function {found.name}() with {len(found.args)} > {_MAX_ARGS} args. Buggy compiler.")
    if not found.returns_int:
        invalid(f"Global function {found.name}() return value not void or int. Only those are supported.")
    for position, kind in enumerate(found.args):
        if kind.startswith("other"):
            invalid(f"Arg#{position} type {kind.partition(':')[2]} in {found.name}() is not supported yet.")


def _match_argument(walk: Walk, number: int, kind: str) -> None:
    reg = walk.regs[number]
    if kind == "int":
        if reg.kind != SCALAR:
            invalid(f"R{number} is not a scalar")
    elif kind == "ctx":
        memory.check_plain_pointer(walk, reg, number)
        if reg.kind != CTX:
            invalid(f"arg#{number - 1} expects pointer to ctx")
    else:
        _, size, *flags = kind.split(":")
        _match_memory(walk, number, int(size))
        if "nonnull" in flags and reg.kind & OR_NULL:
            invalid(f"arg#{number - 1} is expected to be non-NULL")


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
    finally:
        walk.regs[number] = reg


def verify_called(walk: Walk) -> None:
    """Verify every global function that a verified one calls. Fails with a Refusal."""
    done: set[int] = set()
    while True:
        waiting = sorted(walk.types.called - done)
        if not waiting:
            return
        number = waiting[0]
        done.add(number)
        _verify_one(walk, number)


def _verify_one(walk: Walk, number: int) -> None:
    found = walk.types.of(number)
    assert found is not None
    walk.note(f"Validating {found.name}() func#{number}...")
    _prepare(found)
    frame = Frame(-1, 0, number, walk.unset)
    for register, kind in enumerate(found.args, 1):
        frame.regs[register] = _argument(walk, kind)
    walk.start(number, frame)
    walk.run()
    walk.note(f"Func#{number} ('{found.name}') is safe for any args that match its prototype")


def _argument(walk: Walk, kind: str) -> Reg:
    if kind == "int":
        return walk.unknown
    if kind == "ctx":
        return Reg(CTX)
    _, size, *flags = kind.split(":")
    if "nonnull" in flags:
        return Reg(MEM, obj=int(size))
    return Reg(MEM | OR_NULL, 0, scalar.ZERO, walk.new_id(), obj=int(size))
