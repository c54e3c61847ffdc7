"""The mesh that is set, and what its axes of type Explicit ask of Flax."""

import re
from typing import Any

import jax

_AUTO, _EXPLICIT = jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit


def explicit_mesh() -> Any:
    """The mesh that is set, if it has axes of type Explicit; else None.

    Of such axes JAX takes constraints, which Flax's annotations add, for assertions."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if _EXPLICIT in mesh.axis_types else None


def with_auto_axes(mesh: Any) -> Any:
    """`mesh` with all axes of type Auto."""
    return mesh.update(axis_types=(_AUTO,) * len(mesh.axis_names))


def is_about_sharding(error: Exception) -> bool:
    """Whether an error may come from such axes: JAX has no public type for those."""
    return bool(_ABOUT_SHARDING.search(str(error)))


def lacks_mesh(error: Exception) -> bool:
    """Whether NNX wants a mesh for an annotation: it raises no type of its own."""
    return isinstance(error, ValueError) and "mesh context or metadata" in str(error)


# The last is in `float32[16@model]`.
_ABOUT_SHARDING = re.compile(r"[Ss]harding|[Mm]esh\b|\w@\w")
