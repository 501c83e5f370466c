"""What the abstract operations promise: every concrete result lies in the abstract one, for random numbers of 64 bits.

test_verifier_exhaustive.py has all small ones.
"""

from __future__ import annotations

import itertools
import random

import pytest
from sound_values import apply, around, holds, samples

from pktbpf.verifier import scalar
from pktbpf.verifier.profile import profile
from pktbpf.verifier.tnum import M32

# Each differs from the next in what its arithmetic finds out.
VERSIONS = ("5.10", "6.1", "6.8", "6.10", "6.12", "6.14", "6.18")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["ADD", "SUB", "MUL", "AND", "OR", "XOR", "NEG", "LSH", "RSH", "ARSH"])
def test_arithmetic_holds_all_results(name: str, bits: int, version: str) -> None:
    rng = random.Random(name + str(bits))
    domain = profile(version).domain
    for _ in range(600):
        xs = samples(rng)
        ys = [rng.randrange(bits)] if name.endswith("SH") else samples(rng)
        result = domain.apply(name, bits, around(xs), around(ys))
        if result is None:
            assert version != "6.18"
            continue
        for x, y in itertools.product(xs, ys):
            assert scalar.holds(result, apply(name, bits, x, y)), (name, bits, xs, ys)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("name", ["EQ", "NE", "SET", "GT", "GE", "LT", "LE", "SGT", "SGE", "SLT", "SLE"])
def test_comparisons_keep_all_possible_values(name: str, bits: int, version: str) -> None:
    rng = random.Random(name + str(bits))
    domain = profile(version).domain
    for _ in range(600):
        xs, ys = samples(rng), samples(rng)
        a, b = around(xs), around(ys)
        decided = domain.decide(name, bits, a, b)
        taken_a, taken_b, other_a, other_b = domain.learn(name, bits, a, b)
        for x, y in itertools.product(xs, ys):
            taken = holds(name, bits, x, y)
            assert decided is None or decided == taken, (name, bits, xs, ys)
            after = (taken_a, taken_b) if taken else (other_a, other_b)
            assert scalar.holds(after[0], x), (name, bits, xs, ys)
            assert scalar.holds(after[1], y), (name, bits, xs, ys)


@pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(VERSIONS)))
def test_a_newer_kernel_knows_no_less(older: str, newer: str) -> None:
    rng = random.Random(older)
    before, after = profile(older).domain, profile(newer).domain
    for _ in range(3000):
        # The products of 6.18 know other bits, not always more.
        names = ("ADD", "SUB", "AND", "OR", "XOR", "RSH", "ARSH", *(() if newer == "6.18" else ("MUL",)))
        name, bits = rng.choice(names), rng.choice((64, 32))
        a, b = around(samples(rng)), around([rng.randrange(bits)] if name.endswith("SH") else samples(rng))
        old, new = before.apply(name, bits, a, b), after.apply(name, bits, a, b)
        assert new is not None or old is None
        if old is not None and new is not None:
            assert scalar.within(old, new), (name, bits, a, b)


def test_extensions_hold_all_results() -> None:
    rng = random.Random(5)
    for _ in range(3000):
        values = samples(rng)
        s = around(values)
        for size in (1, 2, 4):
            bits = 8 * size
            for value in values:
                low = value & (1 << bits) - 1
                assert scalar.holds(scalar.truncate(s, size), low)
                extended = low - (1 << bits) if low >> bits - 1 else low
                assert scalar.holds(scalar.checked(scalar.sign_extend(s, size)), extended)
                if size < 4:
                    half = scalar.sync(scalar.zero_extend(scalar.sign_extend32(s, size)))
                    assert scalar.holds(half, extended & M32)
