"""Nearly right programs that look into the kernel's structures: members, nested ones, pointers, what helpers take."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

from verifier_generate import Code, I, Maker, call, ldmap, mov, movr
from verifier_kfuncs import kcall, place
from verifier_oracle import kernel_types

from pktbpf.objfile.btf import COMPOSITES, BtfKind, BtfType

# Structures with much of everything in them, for casts; those that helpers and kernel functions take come first.
CASTS = (
    "task_struct", "cgroup", "cgroup_subsys_state", "sock_common", "pt_regs", "bpf_map", "sk_buff", "sock",
    "css_set", "mm_struct", "vm_area_struct", "file", "dentry", "inode", "net_device", "rq", "request_sock",
    "bpf_prog", "kmem_cache", "tcp_sock", "iphdr", "net", "page", "bpf_array", "module", "super_block",
    "work_struct", "perf_event", "signal_struct", "bpf_prog_aux", "nft_expr", "unix_address", "linux_dirent64",
    "socket", "bio", "kernfs_node", "bpf_iter_meta", "ipv6hdr", "tcphdr", "list_head", "xdp_buff", "inet_sock",
    "fib_info", "neighbour", "dst_entry", "percpu_ref", "slab",
)  # fmt: skip
LOADS = {1: (0x71, 0x91), 2: (0x69, 0x89), 4: (0x61, 0x81), 8: (0x79, 0x79)}
SOCKETS = (136, 137, 138, 139, 140, 178, 196)
# Share of walks that begin in a per-CPU variable. A kernel without CONFIG_KALLSYMS_ALL refuses all of them.
VARIABLES = 0.03
_VARIABLES = ("runqueues", "bpf_prog_active", "cpu_info", "current_task", "kernel_cpustat", "irq_regs", "cpu_tlbstate")


@functools.cache
def _struct(name: str) -> int:
    """Number of a structure in the running kernel's BTF, 0 without one."""
    types = kernel_types()
    found = types.find(name, BtfKind.STRUCT) if types is not None else None
    return found.id if found is not None else 0


def _size(kind: BtfType) -> int:
    types = kernel_types()
    assert types is not None
    return types.size_of(kind.id) if kind.kind not in (BtfKind.FWD, BtfKind.VOID, BtfKind.FUNC_PROTO) else 1


def _member(rng: random.Random, number: int) -> tuple[int, int, int]:
    """(offset, bytes, structure behind it or 0) of some member of a structure, nested ones entered."""
    types, base = kernel_types(), 0
    while types is not None and 0 < number < len(types):
        owner = types.resolve(number)
        if owner.kind not in COMPOSITES or not owner.members:
            break
        pointers = [m for m in owner.members if types.resolve(m.type).kind is BtfKind.PTR]
        member = rng.choice(pointers if pointers and rng.random() < 0.4 else owner.members)
        base += member.bit_offset // 8
        found = types.resolve(member.type)
        while found.kind is BtfKind.ARRAY:
            element = types.resolve(found.ref)
            base += _size(element) * rng.choice((0, 0, max(found.count - 1, 0), found.count, 1))
            found = element
        if found.kind is BtfKind.PTR:
            target = types.resolve(found.ref)
            return base, 8, target.id if target.kind in COMPOSITES else 0
        if found.kind not in COMPOSITES:
            return base, {1: 1, 2: 2, 8: 8}.get(_size(found), 4), 0
        number = found.id
    return base + rng.choice((0, 8, 16, 64)), rng.choice((4, 8)), 0


class Walker:
    """A path through structures. number: of the structure that r7 points to, as far as that is foreseen."""

    def __init__(self, rng: random.Random):
        self.m = Maker(rng)
        self.rng = rng
        self.number = 0

    def check(self, chance: float) -> None:
        """A test of r7 against null."""
        if self.rng.random() < chance:
            self.m.code += [I(0x55, 7, 0, 2, 0), mov(0, 0), I(0x95)]

    def begin(self) -> None:
        """A pointer to some structure in r7."""
        m, r = self.m, self.rng
        if r.random() < VARIABLES:
            self.variable(r.choice(_VARIABLES))
            return
        kind = r.random()
        if kind < 0.25:
            m.code += [call(158), movr(7, 0)]
            self.number = _struct("task_struct")
        elif kind < 0.45:
            m.code += [movr(1, 6), kcall("bpf_cast_to_kern_ctx"), movr(7, 0)]
            self.number = _struct("sk_buff")
        elif kind < 0.75:
            m.code += r.choice(([movr(1, 6)], [mov(1, 0)], [movr(1, 10)], [call(158), movr(1, 0)]))
            self.number = _struct(r.choice(CASTS)) if r.random() < 0.95 else r.choice((1, 2, 1 << 20, -1))
            m.code += [mov(2, self.number), kcall("bpf_rdonly_cast"), movr(7, 0)]
            self.check(0.2)
        elif kind < 0.85:
            m.code += [I(0x79, 1, 6, 168), I(0x55, 1, 0, 2, 0), mov(0, 0), I(0x95)]
            number = r.choice(SOCKETS)
            m.code += [call(number), movr(7, 0)]
            self.number = _struct({136: "tcp6_sock", 178: "unix_sock", 140: "udp6_sock"}.get(number, "tcp_sock"))
            self.check(0.9)
        elif kind < 0.95:
            m.code += ldmap(7, r.randrange(18))
            self.number = _struct(r.choice(("bpf_map", "bpf_array", "bpf_htab")))
        else:
            m.code += [mov(1, 0), kcall("bpf_get_kmem_cache"), movr(7, 0)]
            self.number = _struct("kmem_cache")
            self.check(0.8)

    def variable(self, name: str) -> None:
        """Some processor's copy of a per-CPU variable in r7, or the variable itself."""
        m, r = self.m, self.rng
        types = kernel_types()
        found = types.find(name, BtfKind.VAR) if types is not None else None
        m.code += [I(0x18, 1, 3, 0, found.id if found is not None else 0), I(0)]
        self.number = found.ref if found is not None else 0
        if r.random() < 0.1:
            m.code.append(movr(7, 1))
        elif r.random() < 0.5:
            m.code += [call(154), movr(7, 0)]
        else:
            m.code += [mov(2, r.choice((0, 1, 7))), call(153), movr(7, 0)]
            self.check(0.9)

    def step(self) -> None:
        """A load of a member, sometimes beside it, into r7 where it is a pointer."""
        m, r = self.m, self.rng
        offset, size, target = _member(r, self.number)
        if r.random() < 0.05:
            offset += r.choice((-8, -4, -1, 1, 2, 4, 8, 0x1000))
        if r.random() < 0.06:
            size = r.choice((1, 2, 4, 8))
        if not 0 <= offset < 32768:
            offset = r.choice((0, 8, 0x7FF8))
        if r.random() < 0.1:
            m.code.append(I(0x07, 7, 0, 0, offset))
            offset = 0
        follow = size == 8 and (target or r.random() < 0.3)
        m.code.append(I(r.choice(LOADS[size]) if r.random() < 0.3 else LOADS[size][0], 7 if follow else 8, 7, offset))
        m.scalars = {8} if not follow else set()
        if follow:
            self.number = target
            self.check(0.35)

    def use(self) -> None:
        """Something else with r7."""
        m, r = self.m, self.rng
        what = r.random()
        if what < 0.1:
            m.code += [I(0x7B, 10, 7, -8), I(0x79, 7, 10, -8)]
        elif what < 0.2:
            m.code.append(r.choice((I(0x7B, 7, 6, 0), I(0x7A, 7, 0, 0, 0), I(0xDB, 7, 8, 0), I(0x0F, 7, 8))))
        elif what < 0.35:
            m.code += [movr(1, 7), call(175), *r.choice(([], [movr(7, 0)]))]
        elif what < 0.5:
            m.code += [movr(1, 7), *place(2, -64), mov(3, 64), mov(4, 0), call(141)]
        elif what < 0.6:
            m.code += [movr(1, 7), call(r.choice(SOCKETS)), movr(7, 0)]
            self.check(0.7)
        elif what < 0.7:
            m.code += [*place(1, -24), movr(2, 7), mov(3, 0), kcall("bpf_iter_task_new")]
            m.code += [*place(1, -24), kcall("bpf_iter_task_destroy")]
        elif what < 0.75:
            m.code += [*place(1, -24), movr(2, 7), mov(3, 0), kcall("bpf_iter_css_new")]
            m.code += [*place(1, -24), kcall("bpf_iter_css_destroy")]
        elif what < 0.8:
            m.code += [movr(1, 7), kcall("bpf_map_sum_elem_count")]
        elif what < 0.9:
            m.code += [movr(1, 7), mov(2, r.choice((8, 16, 64))), call(6)]
        elif what < 0.95:
            m.code += [*place(1, -64), mov(2, 8), movr(3, 7), call(r.choice((112, 113, 115)))]
        else:
            other = r.choice((6, 10, 8))
            m.code += [I(0x1D, 7, other, 1), movr(8, 7)]


def _symbol(rng: random.Random) -> int:
    """Number of some function or variable of the kernel, now and then of something else."""
    types = kernel_types()
    if types is None or rng.random() < 0.1:
        return rng.choice((0, 1, 3, -1, 1 << 20))
    if rng.random() < 0.2:
        found = types.find(rng.choice(("runqueues", "bpf_prog_active", "cpu_info", "current_task")), BtfKind.VAR)
    else:
        found = types.find(rng.choice(("vfs_read", "schedule", "tcp_sendmsg", "bpf_iter_num_new")), BtfKind.FUNC)
    return found.id if found is not None else 0


def symbols(rng: random.Random) -> Code:
    """Addresses of functions and variables of the kernel, and what can be done with them."""
    m = Maker(rng)
    m.code.append(movr(6, 1))
    for off in range(8, 40, 8):
        m.code.append(I(0x7A, 10, 0, -off, 7))
    register = rng.choice((1, 1, 7))
    m.code += [I(0x18, register, 3, 0 if rng.random() < 0.95 else 8, _symbol(rng))]
    m.code += [I(0, 0, 0, 0, 0 if rng.random() < 0.95 else 1)]
    uses: tuple[Code, ...] = (
        [I(0x61, 2, register)], [I(0x62, register, 0, 0, 1)], [I(0x15, register, 0, 1, 0), mov(2, 0)],
        [I(0x07, register, 0, 0, 8)], [I(0x0F, register, 6)], [I(0x7B, 10, register, -8), I(0x79, 3, 10, -8)],
        [movr(1, register), mov(2, rng.choice((0, 1, 8))), call(rng.choice((6, 153, 105)))],
        [movr(1, register), call(154), I(0x61, 2, 0)], [movr(0, register), I(0x95)], [I(0x1D, register, 10, 0)],
        [*place(1, -8), mov(2, 8), movr(3, register), call(113)], [movr(1, register), kcall("bpf_map_sum_elem_count")],
        [*ldmap(1, 1), movr(2, register), call(1)], [I(0xBC, 2, register)], [I(0xDB, register, 6)],
    )  # fmt: skip
    for _ in range(rng.randrange(0, 3)):
        m.code += rng.choice(uses)
    return m.end()


def objects(rng: random.Random) -> Code:
    """A walk through structures of the kernel, with uses on the way and sometimes two ways to one load."""
    w = Walker(rng)
    w.m.code.append(movr(6, 1))
    w.m.code.append(mov(8, 0))
    if rng.random() < 0.5:
        w.m.code += [I(0x7A, 10, 0, -off, 7) for off in range(8, 72, 8)]
    locked = rng.random() < 0.15
    if locked:
        w.m.code += [kcall("bpf_rcu_read_lock")]
    w.begin()
    for _ in range(rng.randrange(1, 6)):
        if rng.random() < 0.75:
            w.step()
        elif rng.random() < 0.2:
            at = len(w.m.code)
            w.m.code.append(I(0x15, 8, 0, 0, 0))
            w.begin()
            w.m.code[at] = w.m.code[at]._replace(off=len(w.m.code) - at - 1)
        else:
            w.use()
    if locked if rng.random() < 0.95 else not locked:
        w.m.code += [kcall("bpf_rcu_read_unlock")]
        if rng.random() < 0.5:
            w.step()
    return w.m.end()


FEATURES: dict[str, Callable[[random.Random], Code]] = {"objects": objects, "symbols": symbols}
