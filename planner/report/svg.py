"""Elements of SVG as text, and how wide a text may become."""

from __future__ import annotations

from html import escape

SMALL = 11  # px, the size of texts in charts
LINE = 14  # from one line of such text to the next

# Widths in em of DejaVu Sans, among the widest of the fonts that a browser takes for `system-ui`.
_NARROW = frozenset("ijlI.,:;|'!()[] ")
_SLIM = frozenset('ftr-/"')
_BROAD = frozenset("mwMW%@")


def element(tag: str, *inside: str, **attributes: str | float | None) -> str:
    """An element. `class_` is class, `data_row` is data-row; None leaves an attribute out; `inside` is SVG already."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value), quote=True)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>{''.join(inside)}</{tag}>" if inside else f"<{tag}{given}/>"


def text(x: float, y: float, words: str, anchor: str = "start", class_: str | None = None, **more: str | float) -> str:
    """A text with its baseline at y."""
    return element("text", escape(words), x=x, y=y, text_anchor=anchor, class_=class_, **more)


def line(x1: float, y1: float, x2: float, y2: float, class_: str, **more: str | float) -> str:
    """A straight line."""
    return element("path", d=f"M{number(x1)},{number(y1)}L{number(x2)},{number(y2)}", class_=class_, **more)


def rect(x: float, y: float, width: float, height: float, class_: str | None = None, **more: str | float) -> str:
    """A rectangle."""
    return element("rect", x=x, y=y, width=max(width, 0), height=max(height, 0), class_=class_, **more)


def number(value: float) -> str:
    """A coordinate, to a tenth of a pixel."""
    return "0" if abs(value) < 0.05 else f"{value:.1f}".removesuffix(".0")


def width_of(words: str, size: float = SMALL) -> float:
    """About the width in pixels, rather too much than too little."""
    return size * sum(_em(letter) for letter in words)


def lines_of(words: str, width: float, size: float = SMALL) -> list[str]:
    """The words broken into lines no wider than this."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width_of(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _em(letter: str) -> float:
    if letter in _NARROW:
        return 0.38
    if letter in _SLIM:
        return 0.45
    return 0.96 if letter in _BROAD else 0.72 if letter.isupper() else 0.64


def _value(value: str | float | None) -> str:
    return value if isinstance(value, str) else number(float(value or 0))
