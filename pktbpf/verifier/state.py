"""Register, stack slot, frame and path: the state that the walk carries from instruction to instruction.

A Reg is never changed, only replaced, so states share registers and copying a state copies a few short lists. Kinds are
small integers with modifier bits above them; `kind_text` names them as the kernel's log does. Stack slots are pairs of
eight type letters, highest address first, and the register spilled there (or None).
"""

from __future__ import annotations

from typing import Any

from pktbpf.verifier import scalar
from pktbpf.verifier.scalar import Scalar

# What a register holds. The low six bits are the base; modifiers are flags above them.
NOT_INIT, SCALAR, CTX, MAP_PTR, MAP_VALUE, MAP_KEY, STACK, SOCK_COMMON, SOCKET, TCP_SOCK, XDP_SOCK = range(11)
BTF, MEM, FUNC, DYNPTR = range(11, 15)
BASE = 0x3F
OR_NULL, RDONLY, RINGBUF, PERCPU, RCU, UNTRUSTED, TRUSTED, ALLOC, SLICE, SKB_SLICE, USER = (
    1 << n for n in range(6, 17)
)

_BASE_TEXT = (
    "?", "scalar", "ctx", "map_ptr", "map_value", "map_key", "fp", "sock_common", "sock", "tcp_sock", "xdp_sock",
    "ptr_", "mem", "func", "dynptr_ptr",
)  # fmt: skip
_PREFIXES = (
    (RDONLY, "rdonly_"),
    (RINGBUF, "ringbuf_"),
    (USER, "user_"),
    (PERCPU, "percpu_"),
    (RCU, "rcu_"),
    (UNTRUSTED, "untrusted_"),
    (TRUSTED, "trusted_"),
)

# Letters of stack bytes, as in the kernel's log: unwritten, spilled register, anything, zero, dynptr, iterator,
# interrupt flags.
INVALID, SPILL, MISC, ZERO_BYTE, DYNPTR_BYTE, ITER_BYTE, IRQ_BYTE = "?rm0dif"

# Bits that mark a scalar id as "base plus a constant", by 64- or 32-bit arithmetic; the constant is in `off`.
ADD_CONST64, ADD_CONST32 = 1 << 31, 1 << 30
ADD_CONST = ADD_CONST64 | ADD_CONST32

FP = 10
STACK_LIMIT = 512
MAX_FRAMES = 8


def kind_text(kind: int) -> str:
    """`map_value_or_null`, `rdonly_mem`, `ptr_` and so on."""
    prefix = "".join(word for flag, word in _PREFIXES if kind & flag)
    base = kind & BASE
    null = ("or_null_" if base == BTF else "_or_null") if kind & OR_NULL else ""
    return prefix + _BASE_TEXT[base] + null


class Reg:
    """What one register, or a spilled copy of one, holds.

    kind: base and flags. off: fixed offset of a pointer, or the constant of an ADD_CONST scalar. v: the scalar, or the
    variable offset of a pointer. id: links copies. ref: reference it belongs to. frame: frame of a stack pointer.
    obj: the map, the bytes of a memory region, the number of a function, the type of a dynptr or kernel object.
    uid: which inner map, which dynptr a slice is of, which of several kernel structures of one name. precise: pruning
    must compare the exact range.
    """

    __slots__ = ("frame", "id", "kind", "obj", "off", "precise", "ref", "uid", "v")

    def __init__(
        self,
        kind: int,
        off: int = 0,
        v: Scalar = scalar.ZERO,
        id: int = 0,
        ref: int = 0,
        frame: int = 0,
        obj: Any = None,
        uid: int = 0,
        precise: bool = False,
    ):
        self.kind = kind
        self.off = off
        self.v = v
        self.id = id
        self.ref = ref
        self.frame = frame
        self.obj = obj
        self.uid = uid
        self.precise = precise

    def with_id(self, id: int, off: int = 0) -> Reg:
        """A copy with another id; `off` is the constant that goes with an ADD_CONST id."""
        return Reg(self.kind, off, self.v, id, self.ref, self.frame, self.obj, self.uid, self.precise)

    def with_value(self, v: Scalar) -> Reg:
        """A copy with another range."""
        return Reg(self.kind, self.off, v, self.id, self.ref, self.frame, self.obj, self.uid, self.precise)

    def with_precise(self, precise: bool) -> Reg:
        """A copy that pruning compares exactly, or not."""
        return Reg(self.kind, self.off, self.v, self.id, self.ref, self.frame, self.obj, self.uid, precise)

    def with_kind(self, kind: int) -> Reg:
        """A copy of another kind, everything else kept."""
        return Reg(kind, self.off, self.v, self.id, self.ref, self.frame, self.obj, self.uid, self.precise)

    def same(self, other: Reg) -> bool:
        """Equal in all but ids and precision: what the kernel's memcmp up to the id compares."""
        return self is other or (
            self.kind == other.kind
            and self.v == other.v
            and self.off == other.off
            and self.obj == other.obj
            and self.uid == other.uid
        )

    @property
    def is_null(self) -> bool:
        """A scalar that can only be zero."""
        return self.kind == SCALAR and not self.v[0] and not self.v[1]


UNSET = Reg(NOT_INIT, v=scalar.UNKNOWN)
UNKNOWN = Reg(SCALAR, v=scalar.UNKNOWN)
UNKNOWN_PRECISE = Reg(SCALAR, v=scalar.UNKNOWN, precise=True)

Slot = tuple[str, "Reg | None"]
EMPTY: Slot = (INVALID * 8, None)


def spilled(slot: Slot) -> bool:
    """Whether the slot holds a spilled register: its last letter says so."""
    return slot[0][7] == SPILL


def spilled_scalar(slot: Slot) -> bool:
    """Whether it holds a spilled scalar, whole or in part."""
    return slot[0][7] == SPILL and slot[1] is not None and slot[1].kind == SCALAR


class Frame:
    """One function call on the path: eleven registers and the stack slots used so far (slot 0 is fp-8).

    callsite: instruction of the call, -1 for the entry. subprog: number of the function. callback: called by a helper.
    """

    __slots__ = (
        "async_callback", "async_entries", "callback", "callback_depth", "callsite", "number", "regs", "returns",
        "stack", "subprog",
    )  # fmt: skip

    def __init__(self, callsite: int, number: int, subprog: int, unset: Reg):
        self.regs: list[Reg] = [unset] * 10
        self.regs.append(Reg(STACK, frame=number))
        self.stack: list[Slot] = []
        self.callsite = callsite
        self.number = number
        self.subprog = subprog
        self.callback = False
        self.async_callback = False
        self.async_entries = 0
        self.callback_depth = 0
        self.returns = (0, 0)

    def copy(self) -> Frame:
        """An independent frame; registers and slots are shared because they never change."""
        new = Frame.__new__(Frame)
        new.regs = self.regs[:]
        new.stack = self.stack[:]
        new.callsite = self.callsite
        new.number = self.number
        new.subprog = self.subprog
        new.callback = self.callback
        new.async_callback = self.async_callback
        new.async_entries = self.async_entries
        new.callback_depth = self.callback_depth
        new.returns = self.returns
        return new


# A held reference: what ("ptr", "lock", "irq"), its id, the instruction that took it, the lock's owner.
Reference = tuple[str, int, int, Any]
# One step of the recorded path: instruction, the one before it, stack access (frame, slot) or None, operand flags,
# registers linked at a branch.
Step = tuple[int, int, "tuple[int, int] | None", int, "tuple[tuple[int, int, bool], ...]"]
SRC_STACK, DST_STACK = 1, 2


class State:
    """The path at one instruction, or a checkpoint of it.

    branches: paths below a checkpoint that are not finished. parent: the checkpoint before. history: jumps and stack
    accesses since then, for precision. traced: registers that were followed back through an entry of the history
    already, by how many entries stand up to it. equal: the checkpoint that a loop's state was found equal to.
    """

    __slots__ = (
        "branches", "callback_unroll", "cleaned", "depth", "equal", "first", "frames", "history", "hits", "in_free",
        "insn", "irq", "last", "lock", "locks", "may_goto", "misses", "parent", "preempt", "rcu", "refs",
        "speculative", "traced",
    )  # fmt: skip

    def __init__(self, frame: Frame, first: int):
        self.frames = [frame]
        self.refs: tuple[Reference, ...] = ()
        self.locks = 0
        self.lock: tuple[int, Any] = (0, None)
        self.rcu = False
        self.preempt = 0
        self.irq = 0
        self.speculative = False
        self.branches = 1
        self.parent: State | None = None
        self.first = first
        self.last = -1
        self.insn = first
        self.depth = 0
        self.callback_unroll = 0
        self.may_goto = 0
        self.history: list[Step] = []
        self.traced: dict[int, int] = {}
        self.cleaned = False
        self.equal: State | None = None
        self.hits = 0
        self.misses = 0
        self.in_free = False

    def copy(self) -> State:
        """An independent copy: what a branch or a checkpoint keeps."""
        new = State.__new__(State)
        new.frames = [frame.copy() for frame in self.frames]
        new.refs = self.refs
        new.locks = self.locks
        new.lock = self.lock
        new.rcu = self.rcu
        new.preempt = self.preempt
        new.irq = self.irq
        new.speculative = self.speculative
        new.branches = self.branches
        new.parent = self.parent
        new.first = self.first
        new.last = self.last
        new.insn = self.insn
        new.depth = self.depth
        new.callback_unroll = self.callback_unroll
        new.may_goto = self.may_goto
        new.history = self.history[:]
        new.traced = {}
        new.cleaned = self.cleaned
        new.equal = self.equal
        new.hits = 0
        new.misses = 0
        new.in_free = False
        return new

    def at(self, frame: int) -> int:
        """Instruction where frame `frame` stands: its call, or the current one for the innermost."""
        return self.insn if frame == len(self.frames) - 1 else self.frames[frame + 1].callsite
