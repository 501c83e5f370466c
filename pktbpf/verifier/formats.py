"""Format strings of bpf_snprintf: which conversions there are, and whether the arguments suffice.

Mirrors bpf_bprintf_prepare as far as it looks at the format alone.
"""

from __future__ import annotations

import re

# Bytes beyond ASCII may stand anywhere outside a conversion (stable releases of 6.18).
_PRINTABLE = re.compile(rb"[\x20-\x7e\t-\r\x80-\xff]*")
# What may follow a plain %p or %s: spaces and punctuation, those of Latin-1 among them.
_NEXT = rb"(?=$|[\s!-/:-@\[-`{-~\xa0-\xbf\xd7\xf7])"
# After the percent sign: flags, width, then a pointer of some kind, a string, a character or an integer.
_CONVERSION = re.compile(
    rb"[0+\- ]*(?:[1-9][0-9]*)?"
    rb"(?:p(?:[ku]s" + _NEXT + rb"|[KxsSB]|[iI][46]|" + _NEXT + rb")|s" + _NEXT + rb"|c|l{0,2}[iduxX])",
    re.DOTALL,
)


def check(text: bytes, arguments: int) -> bool:
    """Whether a format, up to its NUL byte, is valid and needs at most `arguments` values. False without a NUL."""
    end = text.find(b"\0")
    if end < 0:
        return False
    text = text[:end]
    if not _PRINTABLE.fullmatch(text):
        return False
    at = used = 0
    while (at := text.find(b"%", at)) >= 0:
        if text[at + 1 : at + 2] == b"%":
            at += 2
            continue
        found = _CONVERSION.match(text, at + 1)
        if found is None or used >= arguments:
            return False
        used += 1
        at = found.end()
    return True
