"""Tables, in text and in HTML."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import html


def table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` in aligned columns, the first row on top of a line.

    >>> print(table([("name", "size"), ("bias", "3")]))
    name  size
    ----  ----
    bias  3
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = rows
    return "\n".join(_lines([head, ["-" * width for width in widths], *body], widths))


def printable(text: str) -> str:
    """`text` with what a terminal would not show as itself spelled out.

    >>> print(printable("a\\x1b[31m"), printable("é"))
    a\\x1b[31m é
    """
    if text.isprintable():
        return text
    spelled = (c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return "".join(spelled)


def _lines(rows: Iterable[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def html_table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """`title` and `rows` in HTML, the first row as the head."""
    lines = [f"<p>{html.escape(title)}</p>"]
    for i, row in enumerate(rows):
        tag = "td" if i else "th"
        cells = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"{lines[0]}<table>{''.join(lines[1:])}</table>" if rows else lines[0]
