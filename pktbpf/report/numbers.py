"""Numbers as people read them: grouped counts, sizes and times with units, shares."""

from __future__ import annotations

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")


def count(value: int) -> str:
    """12,345"""
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes in decimal units with three digits: 999 B, 1.23 kB, 45.6 MB."""
    scaled, unit = float(value), 0
    while scaled >= 999.5 and unit < len(_SIZES) - 1:
        scaled /= 1000
        unit += 1
    return f"{value} B" if unit == 0 else f"{_three(scaled)} {_SIZES[unit]}"


def duration(seconds: float) -> str:
    """Seconds with three digits in the unit that fits: 850 µs, 12.3 ms, 4.56 s, 2 min 05 s."""
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{_three(seconds * 1e3)} ms"
    if seconds < 99.95:
        return f"{_three(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def rate(per_second: float) -> str:
    """Packets per second: 812 packets/s, 45.6 k packets/s, 7.89 M packets/s."""
    for factor, unit in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if per_second >= 0.9995 * factor:
            return f"{_three(per_second / factor)} {unit}packets/s"
    return f"{per_second:.0f} packets/s"


def share(part: int, whole: int) -> str:
    """A percentage with one decimal; never 0.0 % or 100.0 % for what is neither none nor all; empty for no packets."""
    if not whole:
        return ""
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
