"""A table of leaves: what of Flax each leaf of Haiku is, as text, to be applied."""

import ast
from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._files import replacing
from hk_bridge.migrate._matching.spelling import HOW
from hk_bridge.migrate._matching.spelling import PLACE
from hk_bridge.migrate._matching.spelling import checked
from hk_bridge.migrate._matching.spelling import meant
from hk_bridge.migrate._matching.spelling import part_of
from hk_bridge.migrate._matching.spelling import put
from hk_bridge.migrate._matching.spelling import shape_of
from hk_bridge.migrate._matching.spelling import shape_text
from hk_bridge.migrate._matching.spelling import spelled
from hk_bridge.migrate._matching.spelling import steps_of
from hk_bridge.migrate._matching.spelling import turned
from hk_bridge.migrate._matching.spelling import turned_once
from hk_bridge.migrate._matching.spelling import where_of
from hk_bridge.migrate._matching.trees import PARAMS
from hk_bridge.migrate._matching.trees import tree_of

Shape = tuple[int, ...]
UNKNOWN_MARK, FIXED_MARK = "?", "="
_HEAD = ("Haiku", "shape", "Flax", "shape", "turned by")


class Row(NamedTuple):
    """A leaf of Haiku, or a part of one.

    Attributes:
      haiku: its name, `params/linear/w` or `state/batch_norm/~/mean_ema/average`.
      haiku_shape: of the whole leaf.
      flax: the leaf of Flax that it is, `params/Dense_0/kernel`; `?` if that is not
        known, `=3` if it is the number 3 whatever the checkpoint.
      flax_shape: of that leaf, whole.
      how: what is done to what is taken of it: `.T`, `.transpose((1, 0, 2))`,
        `.reshape((4, 8))`, `.flip((0, 1))`, one after the other, then ` + 1.0` or
        ` - 1.0`.
      haiku_part: which part of Haiku's leaf this is: `[0:4]`, maybe after a
        `.reshape`; nothing for all of it.
      flax_part: which part of Flax's leaf it is.
    """

    haiku: str
    haiku_shape: Shape
    flax: str
    flax_shape: Shape
    how: str
    haiku_part: str = ""
    flax_part: str = ""

    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        ours = spelled(self.haiku) + self.haiku_part
        theirs = self.flax if self._is_marked() else spelled(self.flax) + self.flax_part
        shapes = [shape_text(shape) for shape in (self.haiku_shape, self.flax_shape)]
        their_shape = "" if self._is_marked() else shapes[1]
        return ours, shapes[0], theirs, their_shape, self.how

    def _is_marked(self) -> bool:
        return self.flax[:1] in (UNKNOWN_MARK, FIXED_MARK)


@dataclasses.dataclass(frozen=True, repr=False)
class LeafTable:
    """Which leaf of Haiku is which of Flax.

    Attributes:
      rows: a `Row` for each leaf of Haiku, or several for one that is joined of parts.

    >>> text = "params/linear/w\\t(3, 2)\\tparams/Dense_0/kernel\\t(2, 3)\\t.T"
    >>> table = LeafTable.parse(text)
    >>> table
    Haiku            shape   Flax                   shape   turned by
    ---------------  ------  ---------------------  ------  ---------
    params/linear/w  (3, 2)  params/Dense_0/kernel  (2, 3)  .T
    >>> LeafTable.parse(str(table.text())) == table
    True
    >>> import numpy as np
    >>> variables = {"params": {"Dense_0": {"kernel": np.ones((2, 3))}}}
    >>> params, state = table.to_haiku(variables)
    >>> params["linear"]["w"].shape
    (3, 2)
    >>> table.to_flax(params)["params"]["Dense_0"]["kernel"].shape
    (2, 3)
    """

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        return _tables.table([_HEAD, *(row.cells() for row in self.rows)])

    def text(self) -> str:
        """The table as text, a row on each line, with tabs between.

        Returns:
          What `LeafTable.parse` reads.
        """
        lines = [_HEAD, *(row.cells() for row in self.rows)]
        return "\n".join("\t".join(line).rstrip("\t") for line in lines) + "\n"

    def save(self, path: Path) -> None:
        """Writes `text()` to a file.

        Args:
          path: where to; a file that is there is replaced.
        """
        with replacing(pathlib.Path(path)) as new:
            new.write_bytes(self.text().encode())

    @classmethod
    def load(cls, path: Path) -> "LeafTable":
        """The table that `save` wrote, or that was edited since.

        Args:
          path: of the file.

        Returns:
          A new `LeafTable`.

        Raises:
          MatchError: a line is none of a table.
        """
        return cls.parse(pathlib.Path(path).read_bytes().decode())

    @classmethod
    def parse(cls, text: str) -> "LeafTable":
        """The table that `text` gave, or that was edited since.

        Args:
          text: of a table.

        Returns:
          A new `LeafTable`.

        Raises:
          MatchError: a line is none of a table.
        """
        rows = []
        for number, line in enumerate(text.split("\n"), 1):
            cells = [cell.strip() for cell in line.split("\t")]
            if not line.strip() or tuple(cells) == _HEAD:
                continue
            cells += [""] * (5 - len(cells))
            ours, theirs = (PLACE.fullmatch(cell) for cell in (cells[0], cells[2]))
            how = HOW.fullmatch(cells[4]) if len(cells) == 5 else None
            try:
                shapes = [shape_of(cell) for cell in (cells[1], cells[3])]
            except (ValueError, SyntaxError):
                how = None
            if ours is None or theirs is None or how is None or not cells[2]:
                raise _errors.no_row(number, line)
            row = (meant(ours[1]), shapes[0], meant(theirs[1]), shapes[1], cells[4])
            parts = [
                cell[len(m[1]) :] for cell, m in ((cells[0], ours), (cells[2], theirs))
            ]
            rows.append(Row(*row, *parts))
        return cls(tuple(rows))

    def to_haiku(
        self, variables: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Haiku's trees with the weights of a checkpoint of Flax.

        Args:
          variables: `{collection: nested dict}`, with the leaves that the table names;
            others are ignored.

        Returns:
          `(params, state)`, new dicts. What is not known is left out.

        Raises:
          MatchError: a leaf is missing, or has not the shape that the table says.
        """
        found = {_layout.spelled(w): leaf for w, leaf in _layout.leaves(variables)}
        made: dict[str, Any] = {}
        for row in self.rows:
            if row.flax == UNKNOWN_MARK:
                continue
            if row.flax.startswith(FIXED_MARK):
                number = ast.literal_eval(row.flax[1:])
                dtype = np.int32 if isinstance(number, int) else np.float32
                made[row.haiku] = jnp.full(row.haiku_shape, number, dtype)
                continue
            leaf = checked(found.get(row.flax), row.flax, row.flax_shape)
            value = turned(part_of(leaf, row.flax_part), row.how)
            whole = made.get(row.haiku)
            made[row.haiku] = put(whole, value, row.haiku_shape, row.haiku_part)
        return tree_of(made)

    def to_flax(
        self,
        params: Mapping[str, Any] | None,
        state: Mapping[str, Any] | None = None,
        *,
        like: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The variables of Flax with these weights of Haiku.

        Args:
          params: Haiku params.
          state: Haiku state.
          like: variables for what Haiku does not have, for boxes, and for the bits that
            are lost where a number is added and taken away again.

        Returns:
          `{collection: nested dict}`, new plain dicts.

        Raises:
          MatchError: a leaf of Haiku is missing, or has not the shape that the table
            says, or two that are one leaf of Flax are not the same any more.
        """
        trees = {"params": params or {}, "state": state or {}}
        held = {_layout.spelled(w): leaf for w, leaf in _layout.leaves(like or {})}
        made: dict[str, Any] = {}
        known: dict[tuple[str, str], tuple[str, Any]] = {}
        for row in self.rows:
            if row.flax[:1] in (UNKNOWN_MARK, FIXED_MARK):
                continue
            which, _, rest = row.haiku.partition("/")
            module, _, last = rest.rpartition("/")
            leaf = trees[which].get(module, {}).get(last)
            value = part_of(checked(leaf, row.haiku, row.haiku_shape), row.haiku_part)
            value = self._back(value, row, held.get(row.flax))
            if which == PARAMS:
                place = row.flax, row.flax_part
                other, same = known.setdefault(place, (row.haiku, value))
                if not np.array_equal(same, value, equal_nan=True):
                    raise _errors.is_one_leaf(other, row.haiku, row.flax)
            made[row.flax] = put(
                made.get(row.flax), value, row.flax_shape, row.flax_part
            )
        wheres = {
            _layout.Where(*where_of(name)): value
            for name, value in {**held, **made}.items()
        }
        variables = _layout.insert({}, wheres)
        return variables if like is None else _layout.rebox(variables, like)

    def _back(self, value: Any, row: Row, given: Any) -> Any:
        """A part of Haiku's leaf, turned to what it was in Flax."""
        shape = np.empty(row.flax_shape, bool)
        before = part_of(shape, row.flax_part).shape
        turns, plus = steps_of(row.how)
        numbers = np.arange(int(np.prod(before, dtype=int))).reshape(before)
        for step in turns:
            numbers = turned_once(numbers, step)
        order = np.argsort(numbers.ravel())
        straight = bool((order == np.arange(order.size)).all())
        back = (
            value.reshape(before) if straight else value.ravel()[order].reshape(before)
        )
        if not plus:
            return back
        if given is None:
            return back - plus
        old = part_of(given, row.flax_part)
        xp: Any = np if isinstance(back, np.ndarray) else jnp
        return xp.where(back == old + plus, old, back - plus)
