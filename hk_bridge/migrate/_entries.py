"""What `diff` gives: the leaves in which a checkpoint and a module differ."""

import dataclasses

from hk_bridge import _tables
from hk_bridge._layout.leaf import Leaf
from hk_bridge.migrate._table import Table
from hk_bridge.migrate._table import shown


@dataclasses.dataclass(frozen=True)
class Entry(Leaf):
    """One leaf in which a checkpoint and a module differ.

    Attributes:
      collection, path: where it is in Flax.
      haiku_module, haiku_name: where it is in Haiku.
      expected: what the module makes, as `float32[4,3]`; None if nothing.
      given: what the checkpoint holds, likewise.
      suggestion: for a missing or an unexpected leaf the nearest name on the other
        side, `collection/path`; for a mismatched one how to make it fit, as far as the
        shapes tell (see `diff`). None if there is none.
    """

    expected: str | None
    given: str | None
    suggestion: str | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Diff:
    """How a checkpoint differs from what a module makes.

    Attributes:
      name: the Haiku name in the entries.
      count: how many leaves the module makes, empty dicts among them.
      missing: what the module makes and the checkpoint lacks.
      unexpected: what only the checkpoint has.
      mismatched: what both have, in another shape, dtype or structure.
      table: of a checkpoint with flat names of others, as PyTorch's has, where each of
        its leaves goes: a proposal, to be looked at. `table.save(path)` writes it,
        `load(..., table=path)` takes it, edited or not.
    """

    name: str
    count: int
    missing: tuple[Entry, ...]
    unexpected: tuple[Entry, ...]
    mismatched: tuple[Entry, ...]
    table: Table | None = None

    @property
    def ok(self) -> bool:
        """Whether the checkpoint fits, as it is."""
        differs = self.missing or self.unexpected or self.mismatched
        return not differs and self.table is None

    def __repr__(self) -> str:
        if self.ok:
            return self._summary()
        if self.table is not None:
            return f"{self._summary()}\n{self.table}"
        rows = self._rows()
        return "\n".join([self._summary(), *[_tables.table(rows)] * (len(rows) > 1)])

    def _repr_html_(self) -> str:
        rows = self._rows() if self.table is None else shown(self.table)
        rows = [] if self.ok else rows
        return _tables.html_table(self._summary(), rows)

    @property
    def dtypes(self) -> tuple[str, str] | None:
        """The dtypes `(expected, given)`, if all that is mismatched differs in these
        alone, and in more than one leaf: `load(..., dtype=expected)` makes it fit."""
        found = {_dtypes(entry) for entry in self.mismatched}
        one = len(found) == 1 and len(self.mismatched) > 1
        return found.pop() if one else None

    def _summary(self) -> str:
        if self.ok:
            return f"{self.name!r} fits: {self.count} of {self.count} leaves"
        kinds = ("missing", "unexpected", "mismatched")
        counts = ", ".join(f"{len(getattr(self, kind))} {kind}" for kind in kinds)
        told = f"{self.name!r} differs: {counts}; the module makes {self.count} leaves"
        if self.table is not None:
            known = sum(row.flax not in ("-", "?") for row in self.table.rows)
            return (
                f"{self.name!r} has other names: for {known} of the {self.count} "
                "leaves that the module makes one is proposed. table.save(path) writes "
                "the proposal, and load(..., table=path) takes it"
            )
        if self.dtypes is None:
            return told
        expected, given = self.dtypes
        return (
            f"{told}. The {len(self.mismatched)} mismatched leaves are all {given}: "
            f"load(..., dtype={expected!r}) makes them {expected}, as the module does"
        )

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]]
        rows = [("", "Flax", "Haiku", "expected", "given", "suggestion")]
        kinds = ["missing", "unexpected", *["mismatched"] * (self.dtypes is None)]
        for kind in kinds:
            for entry in getattr(self, kind):
                last = (entry.expected, entry.given, entry.suggestion)
                rows.append((kind, *entry._cells(), *(cell or "-" for cell in last)))
        return rows


def _dtypes(entry: Entry) -> tuple[str, str] | None:
    """The dtypes `(expected, given)` of an entry, if only these differ."""
    expected, given = entry.expected or "", entry.given or ""
    (to, _, new), (old, _, shape) = expected.partition("["), given.partition("[")
    floats = {"float16", "bfloat16", "float32", "float64"}
    return (to, old) if new == shape and {to, old} <= floats else None
