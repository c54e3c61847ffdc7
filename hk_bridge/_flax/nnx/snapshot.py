"""What the objects of a module hold at one time: whether anything has changed since."""

from collections.abc import Sequence
from typing import Any


class Snapshot:
    """What the objects of a graph hold at one time.

    Args:
      hidden: whether there is more, lists and dicts, that may change without a trace.
    """

    def __init__(self, nodes: Sequence[Any], hidden: bool):
        self._nodes = nodes
        self._hidden = hidden
        self.take()

    def take(self) -> None:
        """Takes it anew."""
        self._held = [dict(vars(node)) for node in self._nodes]

    def holds(self) -> bool:
        """Whether nothing has changed since: no attribute is another object."""
        if self._hidden:
            return False
        return all(map(_is_as_before, self._nodes, self._held))


def _is_as_before(node: Any, before: dict[str, Any]) -> bool:
    now = vars(node)
    if len(now) != len(before):
        return False
    return all(now.get(name, before) is value for name, value in before.items())
