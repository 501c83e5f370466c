"""What to do about a refusal: one sentence for each family of the kernel's messages."""

from __future__ import annotations

import re

# Pattern of the first line of the log -> remedy. The first match counts.
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"^back-edge from insn|loading/calling other bpf", "load it with CAP_BPF, which allows loops and functions"),
    (r"^infinite loop detected", "change a variable that the loop's condition tests in every round"),
    (r"^unreachable insn", "remove the code that no path reaches"),
    (r"^last insn is not an exit|^jump out of range", "end every path inside the program with exit or a jump"),
    (r"!read_ok$", "set the register on every path that leads here; calls clear R1 to R5"),
    (r"invalid mem access '\w*or_null'", "compare the pointer with 0 first and use it only where it is not null"),
    (r"invalid mem access 'scalar'", "this is a number here, not a pointer; keep the pointer in R6 to R9 or spill it"),
    (r"unbounded memory access|R\d+ (min|max) value|invalid access to map value|invalid access to memory",
     "test the index against the size just before the access, as an unsigned number"),
    (r"^math between|makes \w+ pointer be out of bounds|unbounded min value",
     "bound the number from both sides before adding it to the pointer"),
    (r"^invalid (indirect )?read from stack|^invalid write to stack",
     "write every byte first and stay within the 512 bytes below R10"),
    (r"^misaligned", "align the offset to the size of the access"),
    (r"^invalid bpf_context access|^invalid sock", "use the fields of __sk_buff that socket filters may see"),
    (r"^Unreleased reference", "give the reference back on every path, also where a later check fails"),
    (r"GPL-restricted", "give the program a GPL-compatible license"),
    (r"cannot use helper|unknown func|invalid func", "socket filters of this privilege or kernel cannot call it"),
    (r"pointer comparison prohibited|leaks addr|pointer arithmetic|partial copy of pointer",
     "without CAP_PERFMON pointers must not become numbers"),
    (r"^R\d+ type=\w+ expected=", "pass what the helper expects in this register"),
    (r"^BPF program is too large|jumps is too complex", "shorten the loops, or mask values so that paths join"),
    (r"call stack|stack size", "use fewer nested calls or less stack"),
    (r"reserved fields|^unknown opcode|invalid bpf_ld_imm64", "the encoding is wrong; assemble the instruction again"),
    (r"^cannot be judged offline", "ask a live kernel, or accept the program explicitly with pktbpf.trust"),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), text) for pattern, text in _REMEDIES)


def remedy(line: str) -> str:
    """The sentence for the first line of an error, empty if there is none."""
    return next((text for pattern, text in _COMPILED if pattern.search(line)), "")
