"""The axes that `flax.linen.partitioning` names, which T5X and its kin use.

It sows the names of a leaf `w` of a collection `c` as `w_axes` into `c_axes`, where
newer code puts the leaf into a box.
"""

import sys
from typing import Any

import flax.linen as nn
from flax.linen import spmd
import jax

_SUFFIX = "_axes"


def axes_of(variables: Any, collection: str) -> Any:
    """What was sown of the axes of `collection`."""
    return variables.get(collection + _SUFFIX, {})


def named(name: Any, axes: Any) -> tuple[str, jax.sharding.PartitionSpec] | None:
    """The leaf that is meant and the axes of the mesh, or None if it is no such thing.

    Logical names become axes of the mesh by the rules in force; without rules, they
    stay as they are."""
    partitioning = sys.modules.get("flax.linen.partitioning")
    if partitioning is None or not isinstance(axes, partitioning.AxisMetadata):
        return None
    if not isinstance(axes.names, (tuple, jax.sharding.PartitionSpec)):
        return None  # a tree of names, which Flax's own functions never sow
    spec = jax.sharding.PartitionSpec(*axes.names)
    rules = nn.get_logical_axis_rules()
    spec = spmd.logical_to_mesh(spec, rules) if rules else spec
    return name.removesuffix(_SUFFIX), spec
