"""The private symbols of NNX, without which the bridge is wrong.

What each is for is said where it is used; `tests/nnx/test_nnx_doors.py` has canaries.
"""

from hk_bridge import _private

_private.require(
    "flax.nnx.graph:GenericPytree",
    "flax.nnx.graph:IndexMap",
    "flax.nnx.graph:NodeDef",
    "flax.nnx.graph:RefMap",
    "flax.nnx.graph:flatten",
    "flax.nnx.graph:unflatten",
    "flax.nnx.variablelib:Variable._raw_value",
)
