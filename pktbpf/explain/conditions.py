"""Conditions of breakpoints: `A == 0x800`, `ip.proto == 6 and X > 20`, `r0 != 0`, `len < 60`.

Python's expression syntax with nothing but numbers, comparisons, arithmetic, and/or/not; names are registers, M[k],
fields of the packet (0 where it has no such field), len, pc and step.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from pktbpf.errors import UsageError
from pktbpf.explain.steps import Step, Trace

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


class Condition:
    """A parsed condition. names: whether a register or field is in it. Raises UsageError for what is none."""

    def __init__(self, text: str):
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise UsageError(f"{text!r} is no condition; an example: ip.proto == 6 and A > 0") from None
        _check(self._tree, text)
        self.names = any(isinstance(one, ast.Name) for one in ast.walk(self._tree))

    def holds(self, trace: Trace, step: Step) -> bool:
        """Whether it is true before a step."""
        return bool(_value(self._tree, _Names(trace, step)))


class _Names:
    """Values of names at a step."""

    def __init__(self, trace: Trace, step: Step):
        self.trace = trace
        self.known: Mapping[str, int] = {
            **{name.lower(): value for name, value in step.before.items()},
            "len": trace.packet.length, "caplen": trace.packet.captured, "pc": step.slot, "step": step.number,
        }  # fmt: skip
        self.fields = {f.name: f for f in reversed(trace.dissection.fields)}

    def get(self, name: str) -> int:
        if name.lower() in self.known:
            return self.known[name.lower()]
        if "." in name:
            found = self.fields.get(name)
            return 0 if found is None else self.trace.dissection.value(found)
        raise UsageError(f"unknown name {name!r}; there are {', '.join(self.known)} and fields such as ip.proto")


def _check(node: ast.AST, text: str) -> None:
    """Only what _value knows."""
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and not isinstance(one.value, int):
            raise UsageError(f"{text!r}: {one.value!r} is not a number")
        allowed = (
            ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare,
            ast.Not, ast.USub, ast.And, ast.Or, ast.Load, *_BINARY, *_COMPARE,
        )  # fmt: skip
        if not isinstance(one, allowed):
            raise UsageError(f"{text!r}: a condition has no {type(one).__name__.lower()}")


def _value(node: ast.AST, names: _Names) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(name):
            return names.get(name)
        case ast.Attribute() | ast.Subscript():
            return names.get(ast.unparse(node))
        case ast.BinOp(left, op, right):
            return _BINARY[type(op)](_value(left, names), _value(right, names))
        case ast.UnaryOp(op, operand):
            value = _value(operand, names)
            return not value if isinstance(op, ast.Not) else -value
        case ast.BoolOp(op, values):
            results = (bool(_value(one, names)) for one in values)
            return all(results) if isinstance(op, ast.And) else any(results)
        case ast.Compare(left, ops, others):
            have = _value(left, names)
            for test, other in zip(ops, others, strict=True):
                following = _value(other, names)
                if not _COMPARE[type(test)](have, following):
                    return False
                have = following
            return True
    raise AssertionError(f"no rule for {type(node).__name__}")
