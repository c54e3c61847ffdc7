"""What `share_traces` did: which calls were shared, and why the others were not."""

import collections
from typing import NamedTuple

from hk_bridge import _tables


class Row(NamedTuple):
    """One call.

    Attributes:
      name: the Haiku name of the module, and below it the path in Flax.
      title: its class.
      why: why its code ran; None if it was shared.
    """

    name: str
    title: str
    why: str | None


class Report:
    """What `share_traces` did, when it is over; its text is a table.

    Attributes:
      rows: one for each call, in order. Calls inside a call that was shared are none.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, name: str, title: str, why: str | None) -> None:
        self.rows.append(Row(name, title, why))

    @property
    def shared(self) -> dict[str, int]:
        """How many calls were shared, by class."""
        found = collections.Counter(row.title for row in self.rows if row.why is None)
        return dict(found)

    def __repr__(self) -> str:
        return f"<{sum(self.shared.values())} of {len(self.rows)} calls shared>"

    def __str__(self) -> str:
        groups: dict[tuple[str, str | None], list[str]] = {}
        for name, title, why in self.rows:
            groups.setdefault((title, why), []).append(name)
        lines = [
            (title, str(len(names)), why or "shared", names[0])
            for (title, why), names in groups.items()
        ]
        return _tables.table(
            [("module", "calls", "what happened", "the first"), *lines]
        )
