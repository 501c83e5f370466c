"""The verifier: what BPF_PROG_LOAD would say of a socket filter, with the same errno and a reason a person can use.

`verify` runs the kernel's structural checks and then walks every path (walk.py). Values (tnum, scalar, state) know no
rules, rules (alu, branches, memory, stack, calls, references, functions, callbacks, dynptrs) know one topic each, and
the walk knows how paths are explored, compared and pruned.
"""

from __future__ import annotations

from pktbpf.verifier.check import verify
from pktbpf.verifier.explanation import Explanation, VerifierRefused

__all__ = ["Explanation", "VerifierRefused", "verify"]
