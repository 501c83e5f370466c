"""Variables and functions of the kernel whose addresses a program takes with a 64-bit immediate.

Programs name them; a number in the instruction itself is one of the kernel that is asked. Mirrors check_pseudo_btf_id,
and what libbpf does with names before it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from pktbpf.isa.extended import Insn
from pktbpf.verifier import kernel_objects, scalar
from pktbpf.verifier.errors import invalid, refuse, unsupported
from pktbpf.verifier.kernel_types import FUNC, STRUCT, UNION, VAR, Kernel
from pktbpf.verifier.layout import ImmediateResolver
from pktbpf.verifier.state import MEM, PERCPU, RDONLY, SCALAR, Reg


class VariableTable(ImmediateResolver):
    """What each such immediate puts into its register."""

    def __init__(self, named: Mapping[int, Any], kernel: Kernel | None):
        self._named = named
        self._kernel = kernel
        self.at: dict[int, Reg] = {}

    def resolve(self, index: int, insn: Insn, second: int) -> None:
        """Check one immediate."""
        variable = self._named.get(index)
        if second:
            invalid("invalid module BTF object FD specified.", insn=index)
        if self._kernel is None:
            what = f"{_name(variable)!r}" if variable is not None else f"number {insn.imm}"
            unsupported(f"the kernel's variable {what}, whose type is not known", insn=index)
        if variable is None:
            self.at[index] = self._numbered(self._kernel, index, insn.imm)
            return
        number = self._kernel.find(_name(variable), VAR, FUNC)
        if number:
            self.at[index] = self._numbered(self._kernel, index, number)
        elif getattr(variable, "weak", False):
            self.at[index] = Reg(SCALAR, v=scalar.exact(0))
        else:
            refuse(errno.ESRCH, f"extern (var ksym) '{_name(variable)}': not found in kernel BTF", insn=index)

    def _numbered(self, kernel: Kernel, index: int, number: int) -> Reg:
        if not 0 <= number < len(kernel.types):
            refuse(errno.ENOENT, f"ldimm64 insn specifies invalid btf_id {number}.", insn=index)
        found = kernel.types.type(number)
        if found.kind not in (VAR, FUNC):
            invalid(f"pseudo btf_id {number} in ldimm64 isn't KIND_VAR or KIND_FUNC", insn=index)
        if kernel.symbols is not None and found.name not in kernel.symbols:
            refuse(
                errno.ENOENT, f"ldimm64 failed to find the address for kernel symbol '{found.name}'.", insn=index
            )
        if found.kind == FUNC:
            return Reg(MEM | RDONLY, obj=0)
        if kernel.per_cpu(number):
            return kernel_objects.pointer(kernel, found.ref, PERCPU)
        target = kernel.resolve(found.ref)
        if target.kind in (STRUCT, UNION):
            return kernel_objects.pointer(kernel, found.ref, 0)
        size = kernel.size_of(found.ref)
        if size is None:
            invalid(f"ldimm64 unable to resolve the size of type '{target.name}': -22", insn=index)
        return Reg(MEM | RDONLY, obj=size)


def _name(variable: Any) -> str:
    """Of a KernelVariable, or of the live map that it has become."""
    return str(getattr(variable, "spec", variable).name)
