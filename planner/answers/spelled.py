"""Times and token counts as people read them, wherever they are shown."""

from __future__ import annotations


def duration(us: float) -> str:
    """`12.3 us`, `4.56 ms` or `7.89 s`."""
    if us < 1000:
        return f"{us:.1f} us"
    if us < 1_000_000:
        return f"{us / 1000:.2f} ms"
    return f"{us / 1_000_000:.3f} s"


def span(first: int, last: int) -> str:
    """`113-16384`, or one number."""
    return str(first) if first == last else f"{first}-{last}"


def times(rival_us: float | None, step_us: float) -> str:
    """`1.147x`, a rival's step over this one's, or `-` where there is none."""
    return "-" if rival_us is None else f"{rival_us / step_us:.3f}x"
