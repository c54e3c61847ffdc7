"""The leaves that were given for a layer."""

from typing import Any

import jax

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge.migrate._twins.plan import Plan
from hk_bridge.migrate._twins.refusals import misfit
from hk_bridge.migrate._twins.refusals import no_layer


class Leaves(dict[str, Any]):
    """The leaves of the given variables, by `params/kernel`."""

    def __init__(self, module: Any, variables: _layout.Variables):
        self.module = module
        for (collection, path), leaf in _layout.leaves(variables):
            key = "/".join((collection, *path))
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise misfit(module, key, f"they hold {leaf!r}, which is no array")
            self[key] = leaf

    def __missing__(self, key: str) -> Any:
        raise misfit(self.module, key, "they lack this leaf of the layer")

    def size(self, key: str, axis: int) -> int:
        """The size of a leaf along `axis`, which is negative; 1 if it has too few."""
        shape = self[key].shape
        return int(shape[axis]) if len(shape) >= -axis else 1


def check_leaves(module: Any, plan: "Plan", leaves: Leaves) -> None:
    """Refuses leaves that linen would not make, for inputs of the sizes they tell."""
    try:
        with jax.numpy_dtype_promotion("standard"):  # linen mixes dtypes
            made = _abstract.evaluate(module.init, jax.random.key(0), *plan.inputs)
    except Exception as error:  # of linen, about sizes that do not go together
        raise no_layer(module, leaves, error) from error
    expected = {"/".join((c, *path)): leaf for (c, path), leaf in _layout.leaves(made)}
    for key in sorted(leaves.keys() - expected.keys()):
        raise misfit(module, key, "they hold a leaf that the layer has not")
    for key, leaf in expected.items():
        if leaves[key].shape != leaf.shape:
            given, makes = list(leaves[key].shape), list(leaf.shape)
            what = f"they hold shape {given}, where the layer makes {makes}"
            raise misfit(module, key, what)
