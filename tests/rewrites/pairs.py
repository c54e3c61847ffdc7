"""What a pair is, and how its names are scrambled."""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import random
from typing import Any
from typing import NamedTuple

import haiku as hk
import jax
import numpy as np


class Planted(NamedTuple):
    """Where a mistake is, and why networks part there.

    Attributes:
      layer: a pattern of what the name of the layer ends with, on either side: of the
        layer itself that has the mistake, or of the block if it is in no layer of it.
      cause: a pattern of what the cause starts with.
    """

    layer: str
    cause: str


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model in Flax and in Haiku.

    Attributes:
      name: of the model.
      flax: makes the module; given a mistake it makes one with it, if it is planted
        there.
      haiku: makes the function to transform, likewise.
      args: what both are called with.
      mistakes: by name, which layer it is in, and what the cause says of it.
      flax_kwargs, haiku_kwargs: for one alone.
      trained: the mistakes that are seen in training alone.
    """

    name: str
    flax: Callable[[str], Any]
    haiku: Callable[[str], Callable[..., Any]]
    args: tuple[Any, ...]
    mistakes: Mapping[str, "Planted"]
    flax_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    haiku_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trained: tuple[str, ...] = ()

    def variables(self, wrong: str = "") -> Any:
        """The variables of the Flax module."""
        module, kwargs = self.flax(wrong), self.kwargs(wrong)[0]
        make = lambda key: module.init(key, *self.args, **kwargs)
        specs = jax.eval_shape(make, jax.random.key(0))
        rng = np.random.default_rng(0)
        return jax.tree_util.tree_map_with_path(
            lambda path, spec: _weights(rng, path[-1].key, spec.shape), specs
        )

    def kwargs(self, wrong: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of Flax and those of Haiku."""
        made = dict(self.flax_kwargs), dict(self.haiku_kwargs)
        if wrong in self.trained:
            made[0]["train"] = made[1]["is_training"] = True
        return made


def _weights(rng: Any, name: str, shape: Any) -> Any:
    """Weights as training leaves them; nothing is compiled for it."""
    noise = rng.standard_normal(shape)
    if name == "var":
        noise = 0.5 + noise**2
    elif name == "scale":
        noise = 1 + 0.2 * noise
    elif len(shape) > 1:
        noise /= np.sqrt(np.prod(shape[:-1]))
    else:
        noise *= 0.2
    return noise.astype(np.float32)


def scrambled(transformed: Any, seed: int = 0) -> Any:
    """The same network, whose modules and parameters have other names.

    What `hk.ExponentialMovingAverage` calls its state stays, as no user names that."""
    rng = random.Random(seed)
    new: dict[Any, str] = {}

    def name(*old: str) -> str:
        if old not in new:
            new[old] = f"n{rng.getrandbits(40):010x}"
        return new[old]

    def there(tree: Any, leaves: bool) -> Any:
        return {
            name(module): {
                name(module, leaf) if leaves else leaf: value
                for leaf, value in bundle.items()
            }
            for module, bundle in tree.items()
        }

    def back(tree: Any, leaves: bool) -> Any:
        old = {value: key for key, value in new.items()}
        return {
            old[module][0]: {
                old[leaf][1] if leaves else leaf: value
                for leaf, value in bundle.items()
            }
            for module, bundle in tree.items()
        }

    if isinstance(transformed, hk.TransformedWithState):

        def init(key, *args, **kwargs):
            params, state = transformed.init(key, *args, **kwargs)
            return there(params, True), there(state, False)

        def apply(params, state, rng, *args, **kwargs):
            state = back(state, False)
            out, state = transformed.apply(
                back(params, True), state, rng, *args, **kwargs
            )
            return out, there(state, False)

        return hk.TransformedWithState(init, apply)
    return hk.Transformed(
        lambda key, *args, **kwargs: there(
            transformed.init(key, *args, **kwargs), True
        ),
        lambda params, rng, *args, **kwargs: transformed.apply(
            back(params, True), rng, *args, **kwargs
        ),
    )


def shuffled(tree: Any, seed: int = 0) -> Any:
    """A nested dict whose keys come in another order."""
    if not isinstance(tree, Mapping):
        return tree
    keys = sorted(tree)
    random.Random(seed).shuffle(keys)
    return {key: shuffled(tree[key], seed + 1) for key in keys}
