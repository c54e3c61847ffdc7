"""A table of names: what a checkpoint calls a leaf, where it goes, how it is turned.

For files with flat names of others, PyTorch's above all. `diff` proposes one."""

import ast
from collections.abc import Mapping
import dataclasses
import pathlib
import re
from typing import Any
from typing import NamedTuple

from hk_bridge import _tables
from hk_bridge._layout import names
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._files import replacing
from hk_bridge.migrate._format import CheckpointError

UNKNOWN, LEFT_OUT = "?", "-"
_HEAD = ("given", "Flax", "turned by")
# What would end a cell or a line, or be taken for space around a cell.
_UNSAFE = re.compile(r"[\\\t\n\r]|^\s|\s$")
_SPELLED = re.compile(r"\\u([0-9a-f]{4})")
_STEP = re.compile(r"\.T|\.transpose\(\([\d, ]+\)\)|\.reshape\(\([\d, ]*\)\)")


class Row(NamedTuple):
    """One leaf.

    Attributes:
      given: its name in the checkpoint.
      flax: where it goes, `params/Dense_0/kernel`; `-` if nowhere, `?` if unknown.
      how: what is done to it: `.T`, `.transpose((2, 3, 1, 0))`, `.reshape((4, 8))`, one
        after the other, or nothing.
    """

    given: str
    flax: str
    how: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """Where each leaf of a checkpoint with other names goes.

    Attributes:
      rows: a `Row` for each leaf of the checkpoint.

    >>> table = Table((Row("fc.weight", "params/fc/kernel", ".T"),))
    >>> table
    given      Flax              turned by
    ---------  ----------------  ---------
    fc.weight  params/fc/kernel  .T
    >>> import numpy as np
    >>> table.variables({"fc.weight": np.ones([2, 3])})["params"]["fc"]["kernel"].shape
    (3, 2)
    """

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        return _tables.table(shown(self))

    def save(self, path: Path) -> None:
        r"""Writes it as text, a row on each line, with tabs between.

        A tab in a name is `\u0009`, and a backslash `\u005c`.

        Args:
          path: where to; a file that is there is replaced.
        """
        rows = [_HEAD, *(map(_spelled, row) for row in self.rows)]
        lines = ["\t".join(row).rstrip("\t") for row in rows]
        with replacing(pathlib.Path(path)) as new:
            new.write_bytes(("\n".join(lines) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> "Table":
        """The table that `save` wrote, or that was edited since.

        Args:
          path: of the file.

        Returns:
          A new `Table`.

        Raises:
          CheckpointError: a line is none of a table.
        """
        rows = []
        try:
            lines = pathlib.Path(path).read_bytes().decode().split("\n")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is no table: it is no text.") from error
        for number, line in enumerate(lines, 1):
            cells = [_meant(cell.strip()) for cell in line.split("\t")]
            if not line.strip() or (number == 1 and cells[0] == _HEAD[0]):
                continue
            if not 2 <= len(cells) <= 3:
                raise CheckpointError(
                    f"Line {number} of {path} is no row of a table: a name, where it "
                    "goes and how it is turned were expected, with tabs between."
                )
            rows.append(Row(*cells))
        return cls(tuple(rows))

    def variables(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """The variables that the leaves of a checkpoint make.

        Args:
          flat: the leaves by the names that the checkpoint has for them.

        Returns:
          `{collection: nested dict}`, new plain dicts.

        Raises:
          CheckpointError: a row and the checkpoint do not fit together.
        """
        made: dict[str, Any] = {}
        given = {row.given for row in self.rows}
        for name in [*(given - set(flat)), *(set(flat) - given)]:
            where = "checkpoint" if name in given else "table"
            raise CheckpointError(f"The {where} has no leaf {name!r}.")
        if len(given) != len(self.rows):
            raise CheckpointError("The table has a leaf of the checkpoint twice.")
        for row in self.rows:
            if row.flax == LEFT_OUT:
                continue
            if row.flax == UNKNOWN:
                raise CheckpointError(
                    f"The table has no place for {row.given!r}. Write where it goes "
                    f"in its second column, or {LEFT_OUT!r} to leave it out."
                )
            try:
                *parents, last = map(names.unescape, row.flax.split("/"))
            except ValueError as error:
                raise CheckpointError(f"The table has {row.flax!r}: {error}") from error
            level: Any = made
            for part in parents:  # one of which may be a leaf already
                level = level.setdefault(part, {}) if isinstance(level, dict) else None
            if not isinstance(level, dict) or last in level or not parents:
                raise CheckpointError(f"The table has no leaf at {row.flax!r}, or two.")
            level[last] = turned(flat[row.given], row)
        return made


def _spelled(cell: str) -> str:
    """A cell as it stands in a file, where it has neither tabs nor ends of lines."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", cell)


def _meant(cell: str) -> str:
    """The inverse of `_spelled`."""
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)), cell)


def shown(table: Table) -> list[tuple[str, ...]]:
    """The rows of a table in text, with a head."""
    return [_HEAD, *table.rows]


def turned(leaf: Any, row: Row) -> Any:
    """A leaf as its row wants it."""
    steps = _STEP.findall(row.how)
    if "".join(steps) != row.how:
        raise CheckpointError(
            f"The table turns {row.given!r} by {row.how!r}, which is none of .T, "
            ".transpose((1, 0)) and .reshape((2, 3))."
        )
    for step in steps:
        name, _, numbers = step.partition("(")
        arguments = [ast.literal_eval(f"({numbers}")] if numbers else []
        try:
            leaf = leaf.T if not arguments else getattr(leaf, name[1:])(*arguments)
        except ValueError as error:
            raise CheckpointError(f"{row.given!r}{row.how} fails: {error}.") from error
    return leaf
