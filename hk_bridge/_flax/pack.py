"""What a lifted transform takes of a Scope, told by the frame that takes it.

`flax.core.lift._partial_pack` reads `scope.rngs`, then picks streams by its filters. A
lazy mapping of streams cannot know names that only a filter spells, and nothing public
tells the filters. So the one frame of Flax that is looked at is looked at here; a
canary is in `tests/test_doors.py`. Without it Scopes inside stay plain: that costs
time, and state may be written that only passed through.
"""

import sys
from typing import Any
from typing import NamedTuple

MAP = "map_variables"  # so does `nn.add_metadata_axis`


class Pack(NamedTuple):
    """A lifted transform: its filters for streams, and its name, if it has one."""

    rng_filters: tuple[Any, ...]
    name: str | None

    @property
    def jitted(self) -> bool:
        """Whether it is `nn.jit`, which runs nothing on a hit of its cache."""
        return self.name == "jit"

    @property
    def maps(self) -> bool:
        """Whether it writes all that it maps, by itself."""
        return self.name == MAP

    def inside(self, debug_path: tuple[str, ...]) -> tuple[str, ...]:
        """The `debug_path` that it gives to the Scope that it makes of one's."""
        if not self.name:
            return debug_path
        *parents, last = debug_path or ("",)
        return (*parents, f"{self.name}({last})")


def asking() -> Pack | None:
    """Who reads the property from which this is called, if a lifted transform does."""
    frame = sys._getframe(2)
    if frame.f_code.co_name != "_partial_pack":
        return None
    found = frame.f_locals
    return Pack(tuple(found.get("rng_filters", (True,))), found.get("name"))
