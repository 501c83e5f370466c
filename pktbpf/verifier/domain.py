"""The arithmetic of one kernel version: the functions that rules ask for what is known of values.

`domain(reach)` gives them for any version; for the newest they are those of scalar.py, arithmetic.py and compare.py
themselves. Results are remembered per version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

from pktbpf.verifier import arithmetic, before_ranges, compare, scalar
from pktbpf.verifier.scalar import NEWEST, Reach, Scalar

_Four = tuple[Scalar, Scalar, Scalar, Scalar]


@dataclass(frozen=True, slots=True)
class Domain:
    """sync: what bits and ranges teach each other. checked: what becomes of a contradiction. truncate: a narrow load.
    apply: an operation, None if nothing is known. decide: a compare. learn, learn_same: operands after one, taken
    first."""

    sync: Callable[[Scalar], Scalar]
    checked: Callable[[Scalar], Scalar]
    truncate: Callable[[Scalar, int], Scalar]
    apply: Callable[[str, int, Scalar, Scalar], Scalar | None]
    decide: Callable[[str, int, Scalar, Scalar], bool | None]
    learn: Callable[[str, int, Scalar, Scalar], _Four]
    learn_same: Callable[[str, int, Scalar], tuple[Scalar, Scalar]]


@cache
def domain(reach: Reach) -> Domain:
    """The functions of a version that reaches so far."""
    if reach == NEWEST:
        return Domain(
            scalar.sync, scalar.checked, scalar.truncate, arithmetic.apply, compare.decide, compare.learn,
            compare.learn_same,
        )  # fmt: skip
    return _ranges(reach) if reach.ranges else _before(reach)


def _applier(reach: Reach, unsettled: Callable[..., Scalar | None], sync: Callable[[Scalar], Scalar]) -> Callable[
    [str, int, Scalar, Scalar], Scalar | None
]:
    @lru_cache(maxsize=1 << 16)
    def apply(operation: str, bits: int, dst: Scalar, src: Scalar) -> Scalar | None:
        if not arithmetic.known_by_then(operation, bits, src, reach):
            return None
        result = unsettled(operation, bits, dst, src, reach)
        if result is None:
            return None
        return sync(scalar.zero_extend(result) if bits == 32 else result)

    return apply


def _ranges(reach: Reach) -> Domain:
    """From 6.8 on: as the newest, less what came later."""

    def sync(s: Scalar) -> Scalar:
        return scalar.sync(s, reach)

    def truncate(s: Scalar, size: int) -> Scalar:
        return sync(scalar.cut(s, size))

    @lru_cache(maxsize=1 << 16)
    def decide(operation: str, bits: int, a: Scalar, b: Scalar) -> bool | None:
        return compare.decided(operation, bits, a, b, reach)

    @lru_cache(maxsize=1 << 16)
    def learn(operation: str, bits: int, a: Scalar, b: Scalar) -> _Four:
        return compare.learnt(operation, bits, a, b, sync)

    def learn_same(operation: str, bits: int, a: Scalar) -> tuple[Scalar, Scalar]:
        return compare.learnt_same(operation, bits, a, sync)

    apply = _applier(reach, arithmetic.unsettled, sync)
    return Domain(sync, scalar.checked, truncate, apply, decide, learn, learn_same)


def _before(reach: Reach) -> Domain:
    """Before 6.8."""

    def sync(s: Scalar) -> Scalar:
        return before_ranges.sync(s, reach)

    def truncate(s: Scalar, size: int) -> Scalar:
        return before_ranges.truncate(s, size, reach)

    @lru_cache(maxsize=1 << 16)
    def learn(operation: str, bits: int, a: Scalar, b: Scalar) -> _Four:
        return before_ranges.learn(operation, bits, a, b, reach)

    def learn_same(operation: str, bits: int, a: Scalar) -> tuple[Scalar, Scalar]:
        return before_ranges.learn_same(operation, bits, a, reach)

    apply = _applier(reach, before_ranges.unsettled, sync)
    return Domain(sync, lambda s: s, truncate, apply, before_ranges.decide, learn, learn_same)
