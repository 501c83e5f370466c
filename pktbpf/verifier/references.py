"""References: what must be given back, pointers that may be null, locks, and invalidation of every copy.

A reference is taken by a helper (a ring-buffer record, a dynptr, a socket), follows all copies of the pointer by its
id, and must be released on every path before the program ends. Mirrors acquire_reference, release_reference,
mark_ptr_or_null_regs and check_resource_leak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pktbpf.verifier import scalar
from pktbpf.verifier.errors import invalid
from pktbpf.verifier.state import OR_NULL, RCU, SCALAR, Reg, State, spilled

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk


def every_register(state: State, change: Callable[[Reg], Reg]) -> None:
    """Replace each register and spilled register of the state by what `change` makes of it."""
    for frame in state.frames:
        regs = frame.regs
        for number, reg in enumerate(regs):
            new = change(reg)
            if new is not reg:
                regs[number] = new
        stack = frame.stack
        for number, slot in enumerate(stack):
            if slot[1] is not None and spilled(slot):
                new = change(slot[1])
                if new is not slot[1]:
                    stack[number] = (slot[0], new)


def acquire(walk: Walk, index: int) -> int:
    """Take a reference at instruction `index`; its new id."""
    id = walk.new_id()
    walk.state.refs += (("ptr", id, index, None),)
    return id


def drop(state: State, id: int) -> bool:
    """Forget the reference; False when it is not held."""
    kept = tuple(ref for ref in state.refs if not (ref[0] == "ptr" and ref[1] == id))
    found = len(kept) != len(state.refs)
    state.refs = kept
    return found


def release(walk: Walk, id: int) -> bool:
    """Give a reference back: every pointer that came with it becomes unusable. False when it is not held."""
    if not drop(walk.state, id):
        return False
    gone = walk.gone
    every_register(walk.state, lambda reg: gone if reg.ref == id else reg)
    return True


def null_tested(state: State, number: int, is_null: bool, precise: bool) -> None:
    """The nullable pointer in register `number`, and its copies, turned out null or not. precise: so is a zero."""
    from pktbpf.verifier.branches import not_null

    reg = state.frames[-1].regs[number]
    id, ref = reg.id, reg.ref
    if ref and ref == id and is_null:
        drop(state, id)

    def settle(other: Reg) -> Reg:
        if not other.kind & OR_NULL or other.id != id or not (other.id or other.kind & RCU):
            return other
        if other.v != scalar.ZERO or other.off:
            return other
        if is_null:
            return Reg(SCALAR, other.off, other.v, 0, 0, other.frame, other.obj, other.uid, other.precise or precise)
        return not_null(other).with_id(0, other.off)

    every_register(state, settle)


def check_nothing_held(walk: Walk, what: str, locks: bool = True) -> None:
    """Before `what` (an exit, a tail call, a packet load): nothing may be held. Fails with EINVAL."""
    state = walk.state
    if locks and state.locks:
        invalid(f"{what} cannot be used inside bpf_spin_lock-ed region")
    if len(state.frames) == 1:
        held = [ref for ref in state.refs if ref[0] == "ptr"]
        if held:
            invalid(
                *(f"Unreleased reference id={ref[1]} alloc_insn={ref[2]}" for ref in held),
                f"{what} would lead to reference leak",
            )
    if locks and state.irq:
        invalid(f"{what} cannot be used inside bpf_local_irq_save-ed region")
    if locks and state.rcu:
        invalid(f"{what} cannot be used inside bpf_rcu_read_lock-ed region")
    if locks and state.preempt:
        invalid(f"{what} cannot be used inside bpf_preempt_disable-ed region")
