"""A box of a user, for the tests to derive theirs from."""

from typing import Any

from flax import struct
from flax.core import meta


class Box(struct.PyTreeNode, meta.AxisMetadata[Any]):
    """A value and nothing else."""

    value: Any

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return self.replace(value=val)

    def add_axis(self, index, params):
        return self

    def remove_axis(self, index, params):
        return self
