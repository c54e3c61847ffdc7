"""A leaf in a table: where it is in Flax, and where in Haiku."""

import dataclasses

from hk_bridge._layout.where import Where
from hk_bridge._layout.where import spelled


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Where a leaf is, for rows that say more of it.

    Attributes:
      collection: of the leaf in Flax.
      path: of the leaf in Flax.
      haiku_module: the name of its module in Haiku.
      haiku_name: its name there.
    """

    collection: str
    path: tuple[str, ...]
    haiku_module: str
    haiku_name: str

    def _cells(self) -> tuple[str, str]:
        """How tables spell both places.

        >>> Leaf("params", ("Dense_0", "bias"), "net/Dense_0", "bias")._cells()
        ('params/Dense_0/bias', 'net/Dense_0/bias')
        """
        flax = spelled(Where(self.collection, self.path))
        return flax, f"{self.haiku_module}/{self.haiku_name}"
