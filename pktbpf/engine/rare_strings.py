"""String functions of the kernel (bpf_strcmp and its kin), which take any address and never fault.

A string ends at its NUL; bytes that are not in a map, the stack or the packet are -EFAULT, numbers that are no
addresses at all -ERANGE. Characters are unsigned, as everywhere in the kernel. Answers are 32 bits in r0. Bodies:
kernel/bpf/helpers.c.
"""

from __future__ import annotations

import numpy as np

from pktbpf.abi.kfuncs import NUMBERS as KFUNCS
from pktbpf.engine.arith import M8, M32, U0, U32
from pktbpf.engine.base import Fault
from pktbpf.engine.common_helpers import F_CALL as _CALL
from pktbpf.engine.common_helpers import R1, R2, R3
from pktbpf.engine.memory import B_WORK, CONTEXT_REGION, argument, charge, reach
from pktbpf.hot import Scalar, hot, peek8, peek64
from pktbpf.maps.layout import READ

(
    STRCMP, STRCASECMP, STRCHR, STRCHRNUL, STRNCHR, STRRCHR, STRLEN, STRNLEN, STRSPN, STRCSPN, STRSTR, STRNSTR,
) = (
    KFUNCS[f"bpf_{n}"] for n in (
        "strcmp", "strcasecmp", "strchr", "strchrnul", "strnchr", "strrchr", "strlen", "strnlen", "strspn", "strcspn",
        "strstr", "strnstr",
    )
)  # fmt: skip
STRINGS = frozenset({
    STRCMP, STRCASECMP, STRCHR, STRCHRNUL, STRNCHR, STRRCHR, STRLEN, STRNLEN, STRSPN, STRCSPN, STRSTR, STRNSTR,
})  # fmt: skip

LONGEST = 65536  # XATTR_SIZE_MAX
ENOENT, E2BIG, EFAULT, ERANGE = (np.int64(-n) for n in (2, 7, 14, 34))
# A search that compares more characters than this has used up any budget, see memory.charge.
MOST_STEPS = 1 << 30
TOO_LONG = np.int64(-1 << 40)
_NONE = np.int64(-1)
_BUDGET = int(Fault.BUDGET)
_LONGEST, _MOST_STEPS, _U1, _U63 = (np.uint64(n) for n in (LONGEST, MOST_STEPS, 1, 63))
_A, _Z, _CASE = np.int64(65), np.int64(90), np.int64(32)
_CONTEXT = np.uint64(CONTEXT_REGION)


@hot
def _byte(pointer: Scalar, block: Scalar) -> Scalar:
    """The byte at an address, or -1 where there is none."""
    charge(block, _U1)
    if pointer >> U32 == _CONTEXT:
        return _NONE
    place = reach(pointer, _U1, READ, block)
    return np.int64(peek8(place)) if place != U0 else _NONE


@hot
def _readable(pointer: Scalar) -> Scalar:
    """Whether a number may be an address at all."""
    return pointer >> U32 != U0


@hot
def _lower(byte: Scalar) -> Scalar:
    return byte + _CASE if _A <= byte <= _Z else byte


@hot
def _compare(left: Scalar, right: Scalar, fold: Scalar, block: Scalar) -> Scalar:
    """strcmp, strcasecmp."""
    if not _readable(left) or not _readable(right):
        return ERANGE
    at = U0
    while at < _LONGEST:
        a, b = _byte(left + at, block), _byte(right + at, block)
        if a < 0 or b < 0:
            return EFAULT
        x, y = (_lower(a), _lower(b)) if fold else (a, b)
        if x != y:
            return np.int64(-1) if x < y else np.int64(1)
        if x == 0:
            return np.int64(0)
        at += _U1
    return E2BIG


@hot
def _find(text: Scalar, count: Scalar, wanted: Scalar, block: Scalar) -> Scalar:
    """strnchr: where a character first is."""
    if not _readable(text):
        return ERANGE
    at = U0
    while at < count and at < _LONGEST:
        byte = _byte(text + at, block)
        if byte < 0:
            return EFAULT
        if byte == wanted:
            return np.int64(at)
        if byte == 0:
            return ENOENT
        at += _U1
    return E2BIG if at == _LONGEST else ENOENT


@hot
def _find_end(text: Scalar, wanted: Scalar, last: Scalar, block: Scalar) -> Scalar:
    """strchrnul (last=False): the first one or the end. strrchr (last=True): the last one."""
    if not _readable(text):
        return ERANGE
    at, found = U0, ENOENT
    while at < _LONGEST:
        byte = _byte(text + at, block)
        if byte < 0:
            return EFAULT
        if byte == wanted:
            found = np.int64(at)
        if not last and (byte == 0 or byte == wanted):
            return np.int64(at)
        if byte == 0:
            return found
        at += _U1
    return E2BIG


@hot
def _length(text: Scalar, count: Scalar, block: Scalar) -> Scalar:
    """strnlen."""
    if not _readable(text):
        return ERANGE
    at = U0
    while at < count and at < _LONGEST:
        byte = _byte(text + at, block)
        if byte < 0:
            return EFAULT
        if byte == 0:
            return np.int64(at)
        at += _U1
    return E2BIG if at == _LONGEST else np.int64(at)


@hot
def _span(text: Scalar, members: Scalar, inside: Scalar, block: Scalar) -> Scalar:
    """strspn (inside=True), strcspn: how many first characters are, or are not, of the set.

    The set is read once, into four words of bits, up to its end, a fault or the limit; that end is the answer for a
    character that is not among those before it.
    """
    if not _readable(text) or not _readable(members):
        return ERANGE
    low, second, third, high, at, end = U0, U0, U0, U0, U0, E2BIG
    while at < _LONGEST:
        byte = _byte(members + at, block)
        if byte <= 0:
            end = EFAULT if byte < 0 else np.int64(0)
            break
        bit = _U1 << (np.uint64(byte) & _U63)
        quarter = byte >> 6
        low |= bit if quarter == 0 else U0
        second |= bit if quarter == 1 else U0
        third |= bit if quarter == 2 else U0
        high |= bit if quarter == 3 else U0
        at += _U1
    at = U0
    while at < _LONGEST:
        byte = _byte(text + at, block)
        if byte <= 0:
            return EFAULT if byte < 0 else np.int64(at)
        quarter = byte >> 6
        word = low if quarter == 0 else second if quarter == 1 else third if quarter == 2 else high
        member = (word >> (np.uint64(byte) & _U63)) & _U1 != U0
        if not member and end < 0:
            return end
        if member != inside:
            return np.int64(at)
        at += _U1
    return E2BIG


@hot
def _search(text: Scalar, part: Scalar, length: Scalar, block: Scalar) -> Scalar:
    """strnstr: where `part` first stands within the first `length` characters; TOO_LONG for a search without end."""
    if not _readable(text) or not _readable(part):
        return ERANGE
    at = U0
    while at < _LONGEST:
        inner = U0
        while at + inner <= length and inner < _LONGEST:
            wanted = _byte(part + inner, block)
            if wanted < 0:
                return EFAULT
            if wanted == 0:
                return np.int64(at)
            if at + inner == length:
                break
            byte = _byte(text + at + inner, block)
            if byte < 0:
                return EFAULT
            if byte == 0:
                return ENOENT
            if byte != wanted:
                break
            inner += _U1
        if peek64(block + B_WORK) > _MOST_STEPS:
            return TOO_LONG
        if inner == _LONGEST:
            return E2BIG
        if at + inner == length:
            return ENOENT
        at += _U1
    return E2BIG


@hot
def _strings(number: Scalar, block: Scalar) -> Scalar:
    """The int that a function returns."""
    one, two, three = argument(block, R1), argument(block, R2), argument(block, R3)
    if number == STRCMP or number == STRCASECMP:
        return _compare(one, two, number == STRCASECMP, block)
    if number == STRLEN or number == STRNLEN:
        return _length(one, _LONGEST if number == STRLEN else two, block)
    if number == STRCHR:
        return _find(one, _LONGEST, np.int64(two & M8), block)
    if number == STRNCHR:
        return _find(one, two, np.int64(three & M8), block)
    if number == STRCHRNUL:
        return _find_end(one, np.int64(two & M8), False, block)
    if number == STRRCHR:
        return _find_end(one, np.int64(np.int32(two & M32)), True, block)
    if number == STRSPN or number == STRCSPN:
        return _span(one, two, number == STRSPN, block)
    return _search(one, two, _LONGEST if number == STRSTR else three, block)


@hot
def call_strings(number: Scalar, block: Scalar) -> Scalar:
    """(r0, fault) of one call; CALL for a number that is none of these."""
    known = (
        number == STRCMP or number == STRCASECMP or number == STRCHR or number == STRCHRNUL or number == STRNCHR
        or number == STRRCHR or number == STRLEN or number == STRNLEN or number == STRSPN or number == STRCSPN
        or number == STRSTR or number == STRNSTR
    )  # fmt: skip
    if not known:
        return U0, _CALL
    answer = _strings(number, block)
    return (U0, _BUDGET) if answer == TOO_LONG else (np.uint64(answer) & M32, 0)
