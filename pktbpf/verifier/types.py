"""What the program's BTF says of its functions: static or global, name, arguments of global ones.

Without function information there are no global functions, no callbacks, and no packet loads or tail calls outside the
main function. Mirrors check_btf_func and btf_prepare_func_args.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pktbpf.verifier.errors import invalid
from pktbpf.verifier.layout import Layout

if TYPE_CHECKING:
    from pktbpf.verifier.walk import Walk

Problem = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class FunctionType:
    """One function: name, linkage, whether it returns an int, what its arguments are ("ctx", "int", ...), and why it
    cannot be a global one. The words are those of pktbpf.objfile.btf_info."""

    name: str
    linkage: str = "static"
    returns_int: bool = True
    args: tuple[str, ...] = ()
    problem: tuple[int, str] | None = None


class FunctionTypes:
    """The functions of one program by number; empty without function information.

    called: global functions that verified code calls. unreliable: functions that some call did not fit.
    """

    def __init__(self, source: Any, layout: Layout):
        self.layout = layout
        self.called: set[int] = set()
        self.unreliable: set[int] = set()
        self.table: dict[int, FunctionType] = dict(getattr(source, "functions", None) or {})
        self.lines: tuple[tuple[int, int, int, int], ...] = getattr(source, "lines", ())
        btf = getattr(source, "btf", None)
        self.strings: int | None = len(btf.strings) if btf is not None else None

    def check_order(self) -> None:
        """The first record belongs to the main function."""
        if self.table and 0 not in self.table:
            invalid(f"nonzero insn_off {min(self.table)} for the first func info record")

    def check(self) -> None:
        """Packet loads and tail calls in functions beside the main one need a known int result."""
        if not self.table:
            for function in self.layout.functions[1:]:
                if function.ld_abs:
                    invalid("LD_ABS is not allowed in subprogs without BTF")
                if function.tail_call:
                    invalid("tail_call is not allowed in subprogs without BTF")
            self._check_lines()
            return
        if len(self.table) != len(self.layout.functions):
            invalid("number of funcs in func_info doesn't match number of subprogs")
        for number, function in enumerate(self.layout.functions):
            found = self.table.get(function.start)
            if found is None:
                invalid("func_info BTF section doesn't match subprog layout in BPF program")
            if number and not found.returns_int and function.ld_abs:
                invalid("LD_ABS is only allowed in functions that return 'int'.")
            if number and not found.returns_int and function.tail_call:
                invalid("tail_call is only allowed in functions that return 'int'.")
        self._check_lines()
        main = self.table[0]
        if main.problem is not None or main.args != ("ctx",):
            self.unreliable.add(0)

    def _check_lines(self) -> None:
        """Lines begin where instructions do, in order, one of them where each function begins; their texts exist."""
        insns, starts = self.layout.insns, [function.start for function in self.layout.functions]
        before, number = 0, 0
        for record, (slot, file, text, _) in enumerate(self.lines):
            if (record and slot <= before) or slot >= len(insns):
                invalid(f"Invalid line_info[{record}].insn_off:{slot} (prev_offset:{before} prog->len:{len(insns)})")
            if not insns[slot].code:
                invalid(f"Invalid insn code at line_info[{record}].insn_off")
            if self.strings is not None and max(file, text) >= self.strings:
                invalid(f"Invalid line_info[{record}].line_off or .file_name_off")
            if number < len(starts):
                if slot > starts[number]:
                    invalid(f"missing bpf_line_info for func#{number}")
                number += slot == starts[number]
            before = slot
        if self.lines and number < len(starts):
            missing = len(starts) - number
            invalid(f"missing bpf_line_info for {missing} funcs starting from func#{number}")

    def of(self, number: int) -> FunctionType | None:
        """What is known of function `number`."""
        return self.table.get(self.layout.functions[number].start)

    def is_global(self, number: int) -> bool:
        """Whether function `number` is verified on its own."""
        found = self.of(number)
        return found is not None and found.linkage == "global"

    def name(self, number: int) -> str:
        """Its name, empty without BTF."""
        found = self.of(number)
        return found.name if found is not None else ""

    def check_call(self, walk: Walk, number: int) -> Problem | None:
        """Whether the arguments of a call fit the function's types; the kernel's errno and words if not.

        Only calls of global functions are refused for it, others leave a note. A function that one call did not fit is
        never trusted again."""
        found = self.of(number)
        if found is None or number in self.unreliable:
            return errno.EINVAL, ()
        from pktbpf.verifier import globals as global_functions

        problem = global_functions.match(walk, found)
        if problem is not None:
            self.unreliable.add(number)
            if found.linkage != "global":
                walk.note(*(line for line in problem[1] if line))
        return problem

    def callback(self, walk: Walk, target: int) -> int:
        """Number of the function whose address is taken; it must be static and have type information."""
        number = self.layout.function_starting(target)
        assert number is not None
        found = self.of(number)
        if found is None:
            invalid("missing btf func_info")
        if found.linkage != "static":
            invalid("callback function not static")
        return number
