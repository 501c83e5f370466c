"""Helpers that read or write text: strtol, strtoul, snprintf, trace_printk, trace_vprintk. Compiled only where called.

Traces go into a buffer behind `text` (see TextState); pktbpf.engine.trace reads them out. Same shape as
pktbpf.engine.common_helpers. Bodies: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.context import COLUMN
from pktbpf.abi.helpers import BY_NAME
from pktbpf.engine.arith import M32, U0
from pktbpf.engine.common_helpers import F_CALL, F_MEMORY, R1, R2, R3, R4, R5
from pktbpf.engine.memory import argument, metadata, reach
from pktbpf.engine.rare_format import EINVAL, gather, render, text_end
from pktbpf.engine.rare_numbers import STRTOL, STRTOUL, strtox
from pktbpf.hot import Scalar, hot, peek64, poke32, poke64
from pktbpf.maps.layout import READ, WRITE

SNPRINTF, PRINTK, VPRINTK = (BY_NAME[n].id for n in ("snprintf", "trace_printk", "trace_vprintk"))
NUMBERS = frozenset({STRTOL, STRTOUL, SNPRINTF, PRINTK, VPRINTK})

# Words of the state behind `text`: bytes of traces, lines lost, where the traces are and how much room, where arguments
# are packed, the key of hashed pointers.
T_USED, T_LOST, T_BUFFER, T_ROOM, T_PACKED, T_KEY = (np.uint64(8 * n) for n in range(6))
TEXT_STATE = 8
LINE = np.uint64(1024)  # MAX_BPRINTF_BUF
HEADER = np.uint64(16)
CPU, TIMESTAMP = COLUMN["cpu"], COLUMN["timestamp"]
_U1, _U3, _U4, _U7, _U8, _U16 = (np.uint64(n) for n in (1, 3, 4, 7, 8, 16))
_MOST = np.uint64(12 * 8)  # MAX_BPRINTF_VARARGS
_ANY = np.uint64(0xFFFFFFFF)
_REGISTERS = np.uint64(1024)  # offset behind the packed arguments, for those of trace_printk


@hot
def _arguments(pointer: Scalar, size: Scalar, block: Scalar) -> Scalar:
    """(machine address, -EINVAL or 0, fault) of the array of arguments."""
    if size & _U7 or size > _MOST or (size != U0 and pointer == U0):
        return U0, EINVAL, 0
    if size == U0:
        return U0, U0, 0
    args = reach(pointer, size, READ, block)
    return args, U0, (F_MEMORY if args == U0 else 0)


@hot
def snprintf(block: Scalar, text: Scalar) -> Scalar:
    """bpf_snprintf(str, str_size, fmt, args, data_len): length with the NUL, or -errno."""
    size, length = argument(block, R2) & M32, argument(block, R5) & M32
    out = reach(argument(block, R1), size, WRITE, block) if size != U0 else _U1
    args, wrong, fault = _arguments(argument(block, R4), length, block)
    fmt, used = text_end(argument(block, R3), _ANY, block)
    if out == U0 or fmt == U0 or fault != 0 or reach(argument(block, R3), used + _U1, READ, block) == U0:
        return U0, F_MEMORY
    if wrong != U0:
        return wrong, 0
    packed = peek64(text + T_PACKED)
    wrong = gather(fmt, used, args, length // _U8, packed, block)
    if wrong != U0:
        return wrong, 0
    return render(out, size, fmt, packed, peek64(text + T_KEY)) + _U1, 0


@hot
def trace(number: Scalar, block: Scalar, text: Scalar) -> Scalar:
    """bpf_trace_printk(fmt, fmt_size, three arguments) and bpf_trace_vprintk(fmt, fmt_size, args, data_len)."""
    size = argument(block, R2) & M32
    packed = peek64(text + T_PACKED)
    args, count, wrong, fault = packed + _REGISTERS, _U3, U0, 0
    if number == PRINTK:
        poke64(args, argument(block, R3))
        poke64(args + _U8, argument(block, R4))
        poke64(args + _U16, argument(block, R5))
    else:
        count = (argument(block, R4) & M32) // _U8
        args, wrong, fault = _arguments(argument(block, R3), argument(block, R4) & M32, block)
    fmt, used = text_end(argument(block, R1), size, block)
    if fmt == U0 or fault != 0 or reach(argument(block, R1), size, READ, block) == U0:
        return U0, F_MEMORY
    if wrong != U0 or used >= size:
        return EINVAL, 0
    wrong = gather(fmt, used, args, count, packed, block)
    if wrong != U0:
        return wrong, 0
    return record(fmt, packed, block, text), 0


@hot
def record(fmt: Scalar, packed: Scalar, block: Scalar, text: Scalar) -> Scalar:
    """Append one line to the traces: uint32 length, uint32 processor, uint64 time, the text, padded to 8 bytes."""
    used = peek64(text + T_USED)
    place = peek64(text + T_BUFFER) + used
    room = used + HEADER + LINE <= peek64(text + T_ROOM)
    length = render(place + HEADER, LINE if room else U0, fmt, packed, peek64(text + T_KEY))
    if not room:
        poke64(text + T_LOST, peek64(text + T_LOST) + _U1)
        return length
    kept = length if length < LINE else LINE - _U1
    poke32(place, kept)
    poke32(place + _U4, np.uint64(metadata(block, CPU)))
    poke64(place + _U8, np.uint64(metadata(block, TIMESTAMP)))
    poke64(text + T_USED, (used + HEADER + kept + _U7) & ~_U7)
    return length


@hot
def call_text(number: Scalar, block: Scalar, text: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these. text: machine address of the state."""
    if number == STRTOL or number == STRTOUL:
        return strtox(number, block)
    if number == SNPRINTF:
        return snprintf(block, text)
    if number == PRINTK or number == VPRINTK:
        return trace(number, block, text)
    return U0, F_CALL
