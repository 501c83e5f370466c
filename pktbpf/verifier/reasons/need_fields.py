"""Needs about special fields of map values, kernel pointers, constants in maps, and types of functions."""

from __future__ import annotations

import re

from pktbpf.verifier.reasons.need_program import Rule
from pktbpf.verifier.reasons.scene import Need, Remedy, Scene

# Pattern, kind of need, what is required, remedy.
_PLAIN: tuple[tuple[str, str, str, str], ...] = (
    (
        r"^store to referenced kptr disallowed|^store to uptr disallowed",
        "kernel_pointer", "a pointer that the map owns to be exchanged, not overwritten",
        "use bpf_kptr_xchg, which gives back what was there",
    ),
    (
        r"^kptr in map can only be accessed",
        "kernel_pointer", "a plain load or store of 8 bytes for a kernel pointer",
        "load or store the whole pointer with an ordinary instruction",
    ),
    (
        r"^BPF_ST imm must be 0 when storing to kptr",
        "kernel_pointer", "null, the only constant that a kernel pointer may be set to",
        "store 0, or a pointer that the program was given",
    ),
    (
        r"^invalid kptr access",
        "kernel_pointer", "a pointer to the structure that the field is declared for, as the program was given it",
        "store a pointer of that type, unchanged",
    ),
    (
        r"^direct access to \w+ is disallowed",
        "special_field", "to leave locks, pointers and the like inside the object to helpers",
        "access the other members only",
    ),
    (
        r"^invalid arg_type for sockmap",
        "map_type", "a helper that puts a socket into the map or looks one up",
        "use bpf_map_lookup_elem, bpf_map_update_elem or bpf_map_delete_elem",
    ),
    (
        r"^direct value access on string failed",
        "constant", "the string in an array of one element, such as .rodata",
        "put the string into a constant variable of its own",
    ),
    (
        r"is not a pointer to arena or scalar",
        "argument", "a number or an arena pointer where the function's type says arena",
        "pass a number, or take the tag away",
    ),
)  # fmt: skip


def _rule(kind: str, requires: str, text: str) -> Rule:
    def rule(scene: Scene, match: re.Match[str]) -> Need:
        return Need(kind, requires, "", Remedy(kind, text, None))

    return rule


def constant_of_many(scene: Scene, match: re.Match[str]) -> Need | None:
    """A load from a frozen array with several elements, which the kernel refuses without a word."""
    if scene.insn.code & 7 != 1:
        return None
    number = scene.insn.src
    text = "leave the array unfrozen, or give it one element that holds an array itself"
    return Need("constant", "a frozen array that programs only read to have one element", scene.words(number),
                Remedy("constant", text, None), (number,))  # fmt: skip


RULES = (
    *((pattern, _rule(kind, requires, text)) for pattern, kind, requires, text in _PLAIN),
    (r"^$", constant_of_many),
)
