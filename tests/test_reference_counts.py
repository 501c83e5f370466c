"""The compiled loop counts no references while packets run: each count is a locked addition, and some 5 ns.

Numba counts a reference wherever it slices an array, or passes one to a function that it does not write out in place.
What runs per instruction or per call therefore takes machine addresses, or arrays that own nothing (hot.borrowed,
hot.words_at), for which counting ends at a null test. Looked at is the machine-independent code of the loop.
"""

from __future__ import annotations

import re

import pytest

import pktbpf
from pktbpf import hot
from pktbpf.engine import interpreter, loop

PROGRAM = """
.map flows HASH key_size=4 value_size=8 max_entries=16
*(u32 *)(r10 -4) = 0
r1 = map[flows] ll
r2 = r10
r2 += -4
call bpf_map_lookup_elem#1
r0 = -1
exit
"""
COUNTED = "@NRT_incref("


@pytest.fixture(scope="module")
def functions() -> dict[str, str]:
    """Text of the functions of the loop as a program with a map has it, after all optimisation, by their names.

    Compiling takes some seconds: code from the cache does not show its text.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hot, "cache_directory", lambda: None)
        fresh = hot.hot(loop.run_batch.py_func)  # type: ignore[attr-defined]
        patch.setattr(interpreter, "run_batch", fresh)
        pktbpf.Filter(pktbpf.load(PROGRAM, form="extended")).run(bytes(60))
    (text,) = fresh.inspect_llvm().values()
    parts = re.split(r"^define ", text, flags=re.MULTILINE)[1:]
    return {found[1]: part for part in parts if (found := re.search(r'@"?([^"(]+)"?\(', part))}


def body(functions: dict[str, str]) -> str:
    """The loop without its first block, in which the arguments are counted once."""
    (whole,) = (text for name, text in functions.items() if re.match(r"_ZN6pktbpf6engine4loop9run_batch", name))
    return re.split(r"^\S+:", whole, maxsplit=2, flags=re.MULTILINE)[2]


pytestmark = pytest.mark.skipif(hot.JIT_DISABLED, reason="nothing is compiled")


def test_the_loop_counts_its_arguments_once(functions: dict[str, str]) -> None:
    assert sum(text.count(COUNTED) for text in functions.values()) > 10  # the name is still the one looked for
    # None at this time. One or two on a path that few programs take would do no harm, but should be wanted.
    counted = body(functions).count(COUNTED)
    assert counted == 0


def test_no_function_counts_an_array_that_has_an_owner(functions: dict[str, str]) -> None:
    """Its owner is the first word of an argument of the loop; what is called with one must not count it."""
    called = re.findall(r'call [^@]*@"?([^"(]+)"?\((.*%arg\.\w+\.0\b.*)', body(functions))
    given = {name for name, _ in called if not name.startswith("NRT_")}
    assert any("4loop5fetch" in name for name in given)  # gets the packets' bytes, and does not keep them
    assert [name for name in given if COUNTED in functions[name]] == []
