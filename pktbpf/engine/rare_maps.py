"""Map helpers of programs that have more than arrays and plain hash tables: every kind, and push, pop, peek, percpu;
processors' copies of the kernel's variables, each of which is such a map as well (pktbpf.instance).

Same shape as pktbpf.engine.common_helpers, whose lookup, update and delete these replace; compiled only where a program
names such a map. Bodies: kernel/bpf/helpers.c.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import BY_NAME
from pktbpf.abi.map_kinds import BY_NAME as KINDS
from pktbpf.engine.arith import M32, U0
from pktbpf.engine.common_helpers import DELETE, F_CALL, F_MEMORY, LOOKUP, R1, R2, R3, R4, UPDATE, map_number
from pktbpf.engine.memory import argument, map_row, metadata, reach
from pktbpf.hot import Scalar, Words, hot
from pktbpf.maps import dispatch_more
from pktbpf.maps.layout import CPUS, KEY_SIZE, KIND, READ, STRIDE, VALUE_SIZE, WRITE, pointer

PUSH, POP, PEEK, PERCPU, PER_CPU_PTR, THIS_CPU_PTR = (
    BY_NAME[n].id for n in (
        "map_push_elem", "map_pop_elem", "map_peek_elem", "map_lookup_percpu_elem", "per_cpu_ptr", "this_cpu_ptr",
    )
)  # fmt: skip
NUMBERS = frozenset({PUSH, POP, PEEK, PERCPU, PER_CPU_PTR, THIS_CPU_PTR})
PERCPU_ARRAY = np.uint64(KINDS["PERCPU_ARRAY"].number)
CPU = COLUMN["cpu"]


@hot
def _valued(number: Scalar, row: Words, block: Scalar) -> Scalar:
    """(r0, fault) of push, pop and peek, whose second argument is the value."""
    value = reach(argument(block, R2), row[VALUE_SIZE], READ if number == PUSH else WRITE, block)
    if value == U0:
        return U0, F_MEMORY
    if number == PUSH:
        return np.uint64(np.int64(dispatch_more.push(row, value, argument(block, R3)))), 0
    if number == POP:
        return np.uint64(np.int64(dispatch_more.pop(row, value))), 0
    return np.uint64(np.int64(dispatch_more.peek(row, value))), 0


@hot
def _copy_of(row: Words, which: Scalar, cpu: Scalar) -> Scalar:
    """(r0, fault): pointer to one processor's copy of the only element, null for a processor that there is not."""
    if row[KIND] != PERCPU_ARRAY:
        return U0, F_CALL
    return (pointer(which, cpu * row[STRIDE]) if cpu < row[CPUS] else U0), 0


@hot
def call_maps(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these or a first argument that is no map."""
    valued = number == PUSH or number == POP or number == PEEK
    copies = number == PER_CPU_PTR or number == THIS_CPU_PTR
    if not (valued or copies or number == LOOKUP or number == UPDATE or number == DELETE or number == PERCPU):
        return U0, F_CALL
    which = map_number(argument(block, R1), block)
    if which == U0:
        return U0, F_CALL
    row = map_row(block, which)
    if copies:
        this = np.uint64(metadata(block, CPU))
        return _copy_of(row, which, argument(block, R2) & M32 if number == PER_CPU_PTR else this)
    if valued:
        return _valued(number, row, block)
    key = reach(argument(block, R2), row[KEY_SIZE], READ, block)
    if key == U0:
        return U0, F_MEMORY
    cpu = np.uint64(metadata(block, CPU))
    if number == LOOKUP:
        return dispatch_more.lookup(row, which, key, cpu), 0
    if number == PERCPU:
        return dispatch_more.lookup_percpu(row, which, key, argument(block, R3) & M32), 0
    if number == DELETE:
        return np.uint64(np.int64(dispatch_more.delete(row, key))), 0
    value = reach(argument(block, R3), row[VALUE_SIZE], READ, block)
    if value == U0:
        return U0, F_MEMORY
    return np.uint64(np.int64(dispatch_more.update(row, key, value, argument(block, R4), cpu))), 0
