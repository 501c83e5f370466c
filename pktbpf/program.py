"""The values that flow: ClassicProgram -> Program -> Verified, all frozen and free of the environment.

A ClassicProgram is `struct sock_filter[]`, a Program `struct bpf_insn[]` with the maps its 64-bit immediates name.
Engines take only Verified: what the checks of `pktbpf.verify` let through, or what `trust` was told to accept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pktbpf.errors import FilterSyntaxError, ObjectError
from pktbpf.isa import classic, extended
from pktbpf.isa.classic import ClassicInsn
from pktbpf.isa.extended import Insn

if TYPE_CHECKING:
    from typing import Self

# Calls into these numbers are internal: what the kernel's own translation of classic programs calls, with no number
# that user space could load. They start far above every helper id and never leave the process.
INTERNAL_HELPER_BASE = 0x7F00_0000
INTERNAL_HELPERS: dict[str, int] = {
    "skb_get_pay_offset": INTERNAL_HELPER_BASE + 0,
    "skb_get_nlattr": INTERNAL_HELPER_BASE + 1,
    "skb_get_nlattr_nest": INTERNAL_HELPER_BASE + 2,
    "dev_type": INTERNAL_HELPER_BASE + 3,
}
INTERNAL_NAMES: dict[int, str] = {number: name for name, number in INTERNAL_HELPERS.items()}


def _slots(raw: bytes) -> bytes:
    if len(raw) % 8:
        raise FilterSyntaxError(f"{len(raw)} bytes are not a whole number of 8-byte instructions")
    return raw


@dataclass(frozen=True)
class ClassicProgram:
    """A classic filter, checked or not. Programs of the same instructions are equal, wherever they come from.

    insns: every instruction as it stands. linktype: DLT number it was written or compiled for, None if unknown.
    origin: where it came from (a path, an expression). libpcap: the version string of the compiler, "" for none.
    labels: names of instructions where the source had them. lines: source line of each instruction, where known.
    """

    insns: tuple[ClassicInsn, ...]
    linktype: int | None = field(default=None, compare=False)
    origin: str = field(default="", compare=False)
    libpcap: str = field(default="", compare=False)
    labels: Mapping[int, str] = field(default_factory=dict, compare=False)
    lines: Mapping[int, int] = field(default_factory=dict, compare=False)

    @classmethod
    def from_bytes(cls, raw: bytes, **kwargs: Any) -> Self:
        """From `struct sock_filter[]` (little-endian, 8 bytes each). Raises FilterSyntaxError for a broken length."""
        return cls(classic.decode_all(_slots(raw)), **kwargs)

    def to_bytes(self) -> bytes:
        """`struct sock_filter[]`, little-endian, as SO_ATTACH_FILTER takes it."""
        return classic.encode_all(self.insns)

    def __len__(self) -> int:
        return len(self.insns)


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What BPF_MAP_CREATE is told. kind: `BPF_MAP_TYPE_` name without the prefix. Sizes in bytes."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    name: str = ""
    inner: MapSpec | None = None
    extra: int = 0


@dataclass(frozen=True, slots=True)
class ProgramRef:
    """A program of the same object or text by name; `program` is it."""

    name: str
    home: Mapping[str, Program] = field(default_factory=dict, compare=False, repr=False)

    @property
    def program(self) -> Program:
        """The program; ObjectError when the object has it in a section that no socket filter comes from."""
        if self.name not in self.home:
            raise ObjectError(f"program {self.name!r} is not among the socket filters of the object")
        return self.home[self.name]


@dataclass(frozen=True, slots=True)
class FilledMap(MapSpec):
    """A map with first contents.

    initial: bytes of the only element of a data section, else None. slots: index -> ProgramRef or map, first contents
    of a program array or map of maps. frozen: user space may not write it once its contents are in (.rodata).
    """

    initial: bytes | None = field(default=None, repr=False)
    slots: Mapping[int, ProgramRef | MapSpec] = field(default_factory=dict, compare=False)
    frozen: bool = False

    @property
    def contents(self) -> bytes | None:
        """The bytes of a constant data section, which nobody can change any more; else None."""
        return self.initial if self.frozen else None


class ValueField(NamedTuple):
    """A field of a map value that only helpers may touch, or, for kernel pointers, plain loads and stores of 8 bytes.

    kind: spin_lock, timer, wq, kptr, kptr_untrusted, percpu_kptr, ... offset, size: bytes. target: for kernel pointers
    the structure that they point to (a PointedStruct), else None.
    """

    kind: str
    offset: int
    size: int
    target: PointedStruct | None = None


@dataclass(frozen=True, slots=True)
class PointedStruct:
    """The structure behind a kernel pointer: its name, and where the program's own BTF (opaque here) has it."""

    name: str
    type_id: int = 0
    types: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class KernelVariable:
    """A variable of the kernel that a program names. weak: its address is 0 in a kernel that has no such variable.
    declared: its type in the object that the program is from, None where that is not known."""

    name: str
    weak: bool = False
    declared: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Program:
    """An extended program: one Insn per eight-byte slot, so numbers agree with the kernel's.

    maps: slot number of a 64-bit immediate -> the map it names (a MapSpec, or a live map). license: as in the object.
    classic: the program this is the translation of. starts: slot at which each classic instruction begins.
    btf: debug information of the object (functions, lines), opaque here; None for none. kfuncs: slot of a call of a
    kernel function -> its name, since the number in the instruction differs from kernel to kernel. kvars: slot of a
    64-bit immediate -> the variable of the kernel that it names (a KernelVariable, or a live one).
    """

    insns: tuple[Insn, ...]
    name: str = ""
    license: str = "GPL"
    maps: Mapping[int, Any] = field(default_factory=dict)
    classic: ClassicProgram | None = None
    starts: tuple[int, ...] = ()
    origin: str = ""
    lines: Mapping[int, str] = field(default_factory=dict, compare=False)
    btf: Any = field(default=None, compare=False)
    kfuncs: Mapping[int, str] = field(default_factory=dict)
    kvars: Mapping[int, Any] = field(default_factory=dict)

    @classmethod
    def from_bytes(cls, raw: bytes, **kwargs: Any) -> Self:
        """From `struct bpf_insn[]` (little-endian, 8 bytes a slot). Raises FilterSyntaxError for a broken length."""
        return cls(extended.decode_all(_slots(raw)), **kwargs)

    def to_bytes(self) -> bytes:
        """`struct bpf_insn[]`, little-endian, as BPF_PROG_LOAD takes it."""
        return extended.encode_all(self.insns)

    def __len__(self) -> int:
        return len(self.insns)

    @property
    def internal_calls(self) -> tuple[int, ...]:
        """Slots that call what user space cannot load; empty for a program that bpf(2) would take."""
        return tuple(
            i for i, insn in enumerate(self.insns) if insn.code == 0x85 and not insn.src and insn.imm in INTERNAL_NAMES
        )

    @property
    def tag(self) -> str:
        """The kernel's program tag as 16 hex digits: SHA-256 (since 6.18) with both halves of map immediates zeroed.

        A kernel's tag of a program that calls kernel functions holds that kernel's numbers of them.
        """
        return program_tag(self.insns)


def program_tag(insns: Iterable[Insn], algorithm: str = "sha256") -> str:
    """First 8 bytes of the digest over the instructions, map references zeroed (bpf_prog_calc_tag)."""
    slots = list(insns)
    for index, insn in enumerate(slots):
        if insn.code == 0x18 and insn.src in (1, 2):
            slots[index] = insn._replace(imm=0)
            if index + 1 < len(slots) and slots[index + 1].code == 0:
                slots[index + 1] = slots[index + 1]._replace(imm=0)
    return hashlib.new(algorithm, extended.encode_all(slots), usedforsecurity=False).hexdigest()[:16]


@dataclass(frozen=True)
class Verified:
    """A program that may run. facts: what was proven per slot, empty for a trusted one. trusted: nothing checked."""

    program: Program
    trusted: bool = False
    facts: Mapping[int, Any] = field(default_factory=dict, compare=False)
    log: str = field(default="", compare=False)

    def __repr__(self) -> str:
        name = f"{self.program.name!r}, " if self.program.name else ""
        return f"<Verified {name}{len(self.program)} instructions{', trusted' if self.trusted else ''}>"

    @property
    def probes(self) -> frozenset[int]:
        """Slots of loads that give 0 where their pointer leads nowhere (the kernel's PROBE_MEM)."""
        return frozenset(slot for slot, fact in self.facts.items() if getattr(fact, "kind", "") == "kernel")


def trust(program: Program) -> Verified:
    """Run a program that no check has seen. Engines stay safe (bounds, budget); the verdict may be a fault."""
    return Verified(program, trusted=True)
