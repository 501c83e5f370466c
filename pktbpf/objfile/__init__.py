"""ELF objects of clang -target bpf -> programs, maps and variables: `load_object`.

What libbpf does before it asks the kernel, without asking the kernel: sections, BTF, map definitions, relocations,
appended functions, CO-RE. Everything that is wrong with an object ends in ObjectError.
"""

from __future__ import annotations

from pktbpf.objfile.load import load_object
from pktbpf.objfile.values import MapDefinition, Object, ProgramBtf, Variable
from pktbpf.program import ProgramRef

__all__ = ["MapDefinition", "Object", "ProgramBtf", "ProgramRef", "Variable", "load_object"]
