"""Tables, in text and in HTML."""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import contextvars
import html
import itertools
import textwrap

_GAP = "  "
_NARROWEST = 8  # no column is made narrower than that
_room: contextvars.ContextVar[int | None] = contextvars.ContextVar("room", default=None)


@contextlib.contextmanager
def fitting(columns: int | None) -> Iterator[None]:
    """Makes tables no wider than a terminal of so many columns; None is any width."""
    token = _room.set(columns)
    try:
        yield
    finally:
        _room.reset(token)


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` in aligned columns, the first row on top of a line.

    Where the terminal is narrower, long cells take several lines.

    >>> rows = [("name", "where"), ("bias", "params['net/Dense_0']['bias']")]
    >>> print(table(rows))
    name  where
    ----  -----------------------------
    bias  params['net/Dense_0']['bias']
    >>> with fitting(24):
    ...     print(table(rows))
    name  where
    ----  ------------------
    bias  params['net/Dense_
          0']['bias']
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    _narrow(widths)
    head, *body = rows
    lined = [head, ["-" * width for width in widths], *body]
    return "\n".join(line for row in lined for line in _lines(row, widths))


def _narrow(widths: list[int]) -> None:
    """Takes from the widest columns, in place, what there is no room for."""
    room = _room.get()
    if room is None:
        return
    for _ in range(sum(widths) + len(_GAP) * (len(widths) - 1) - room):
        widest = max(widths)
        if widest > _NARROWEST:
            widths[widths.index(widest)] = widest - 1


def printable(text: str) -> str:
    """`text` with what a terminal would not show as itself spelled out.

    >>> print(printable("a\\x1b[31m"), printable("é"))
    a\\x1b[31m é
    """
    if text.isprintable():
        return text
    spelled = (c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return "".join(spelled)


def _lines(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """A row in one line, or in as many as its longest cell needs."""
    parts = [_parts(cell, width) for cell, width in zip(row, widths, strict=True)]
    for cells in itertools.zip_longest(*parts, fillvalue=""):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        yield _GAP.join(padded).rstrip()


def _parts(cell: str, width: int) -> list[str]:
    if len(cell) <= width:
        return [cell]
    text = cell.lstrip()
    indent = " " * min(len(cell) - len(text), width // 2)  # of a tree
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """`title` and `rows` in HTML, the first row as the head."""
    lines = [f"<p>{html.escape(title)}</p>"]
    for i, row in enumerate(rows):
        tag = "td" if i else "th"
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"{lines[0]}<table>{''.join(lines[1:])}</table>" if rows else lines[0]
