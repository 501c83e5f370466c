"""The process-wide table of map descriptors that compiled code indexes by map number.

A program's pointer carries the number, so a map found inside another map at run time needs no table of its own. Rows
0-15 stay empty for regions that belong to a run (stack, context). The table only grows; a closed map's row is cleared
and its number used again.
"""

from __future__ import annotations

import threading

import numpy as np

from pktbpf.hot import Words
from pktbpf.maps.layout import FIRST_NUMBER, WIDTH

_LOCK = threading.Lock()
_table: Words = np.zeros((64, WIDTH), dtype=np.uint64)
_free: list[int] = []
_next = FIRST_NUMBER


def table() -> Words:
    """uint64[n, WIDTH], the current table; ask again for every run, it may have grown."""
    return _table


def add(row: Words) -> int:
    """Enter a descriptor; returns its number."""
    global _table, _next
    with _LOCK:
        if _free:
            number = _free.pop()
        else:
            number, _next = _next, _next + 1
            if number >= len(_table):
                grown = np.zeros((2 * len(_table), WIDTH), dtype=np.uint64)
                grown[: len(_table)] = _table
                _table = grown
        _table[number] = row
    return number


def remove(number: int) -> None:
    """Clear a row; pointers into it fault from now on."""
    with _LOCK:
        _table[number] = 0
        _free.append(number)
