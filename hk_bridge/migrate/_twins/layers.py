"""`twin`: Haiku's own layer with the weights of a layer of Flax."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge.migrate._twins.leaves import Leaves
from hk_bridge.migrate._twins.leaves import check_leaves
from hk_bridge.migrate._twins.plan import Move
from hk_bridge.migrate._twins.refusals import lacks
from hk_bridge.migrate._twins.refusals import listed
from hk_bridge.migrate._twins.refusals import not_a_layer
from hk_bridge.migrate._twins.rows import check_fields
from hk_bridge.migrate._twins.rows import row_of

_linen = _flax.linen
hk = _haiku.native


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """A layer of Haiku that equals a layer of Flax, made by `twin`.

    Attributes:
      name: the full Haiku name of the layer, `linear` or `encoder/~/linear`.
      layer: the class of the layer, `hk.Linear`.
      arguments: what its constructor needs for equal results.
      call: how it is called, as text.
      call_arguments: keywords that its call needs for equal results.
      params: Haiku params, `{module name: {leaf name: leaf}}`.
      state: Haiku state, likewise.
      exact: whether both layers run the same arithmetic.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> layer, x = nn.RMSNorm(), jnp.arange(8.0).reshape(2, 4)
    >>> variables = layer.init(jax.random.key(0), x)
    >>> native = twin(layer, variables, name="n")
    >>> native
    hk.RMSNorm(axis=(-1,), param_axis=(-1,), eps=1e-06, create_scale=True, name='n')(x)
    >>> f = hk.transform(lambda x: native.make()(x, **native.call_arguments))
    >>> y = f.apply(native.params, None, x)
    >>> bool(jnp.allclose(y, layer.apply(variables, x), atol=1e-6))
    True
    """

    name: str
    layer: type[hk.Module]
    arguments: Mapping[str, Any]
    call: str
    call_arguments: Mapping[str, Any]
    params: dict[str, dict[str, Any]]
    state: dict[str, dict[str, Any]]
    exact: bool
    _collections: Sequence[str]
    _moves: Sequence[Move]

    def make(self) -> Any:
        """The layer, to be called inside a transform.

        Its own name is the last part of `name`. Build it where Haiku adds the rest:
        `encoder/~/linear` in the constructor of a module `encoder`. Its initialisers
        are Haiku's, and those of `hk.Embed` make float32 whatever the twin has; the
        weights of the Flax layer are in `params` and `state`.

        Returns:
          A new instance of `layer`.
        """
        return self.layer(**self.arguments, name=self.name.split("/")[-1])

    def to_flax(
        self,
        params: _layout.Bundles | None,
        state: _layout.Bundles | None = None,
        *,
        like: _layout.Variables | None = None,
    ) -> dict[str, Any]:
        """The variables of the Flax layer that equals this layer with these weights.

        Entries of other modules are ignored. Gradients can be converted, too, but for
        the LSTM's, whose bias is moved by 1.

        Args:
          params: Haiku params, of a whole network or of this layer.
          state: Haiku state, likewise.
          like: variables whose boxes (`nn.Partitioned` and the like) are put back.

        Returns:
          `{collection: nested dict}`, new plain dicts.

        Raises:
          VariablesError: a leaf of the layer is missing.
        """
        variables: dict[str, Any] = {collection: {} for collection in self._collections}
        for move in self._moves:
            which = "state" if move.is_state else "params"
            bundles = (state if move.is_state else params) or {}
            leaves = []
            for module_name, leaf in move.addresses(self.name):
                if leaf not in bundles.get(module_name, {}):
                    raise lacks(which, module_name, leaf)
                leaves.append(bundles[module_name][leaf])
            for key, value in zip(move.flax, move.to_flax(*leaves), strict=True):
                *parents, last = key.split("/")
                level = variables
                for part in parents:
                    level = level.setdefault(part, {})
                level[last] = value
        return variables if like is None else _layout.rebox(variables, like)

    def __repr__(self) -> str:
        arguments = {**self.arguments, "name": self.name.split("/")[-1]}
        return f"hk.{self.layer.__name__}({listed(arguments)})({self.call})"


def twin(
    linen_module: Any,
    variables: _layout.Variables,
    *,
    name: str,
    ndim: int | None = None,
) -> Twin:
    """Haiku's own layer for a Flax layer, with its weights.

    Leaves are handed over untouched where the shapes agree, else reshaped; their dtype
    is kept, boxes are opened. Neither argument changes.

    Args:
      linen_module: the Flax layer, of a class that `hk_bridge.migrate` lists (its
        subclasses may compute something else, and are refused).
      variables: its variables, as its `init` returns them; `FrozenDict` will do.
      name: the full name of the layer in Haiku, `linear` or `encoder/~/linear`.
      ndim: how many axes the input has, batch and channels included: needed where the
        shapes of Haiku's leaves depend on it, for BatchNorm and for feature axes other
        than the last; and 1 for the GroupNorm of an input `[C]`, as under `jax.vmap`.

    Returns:
      The twin, whose `repr` is the line to write in Haiku.

    Raises:
      ModuleTypeError: `linen_module` is no linen module instance.
      TwinError: the class or its configuration has no twin, or `ndim` is needed, or
        is no number of axes that the input can have.
      VariablesError: `variables` do not have the leaves of the layer, in the shapes
        that linen gives them in this configuration.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> variables = nn.Dense(4).init(jax.random.key(0), jnp.ones([2, 3]))
    >>> native = twin(nn.Dense(4), variables, name="encoder/~/linear")
    >>> native
    hk.Linear(output_size=4, with_bias=True, name='linear')(x)
    >>> jax.tree.map(jnp.shape, native.params)
    {'encoder/~/linear': {'b': (4,), 'w': (3, 4)}}
    >>> jax.tree.map(jnp.shape, native.to_flax(native.params))
    {'params': {'bias': (4,), 'kernel': (3, 4)}}
    """
    _errors.check_name(name)
    if not isinstance(linen_module, _linen.Module):
        raise not_a_layer(linen_module)
    _layout.bundles(variables, name=name)  # refuses what has not the form of variables
    leaves = Leaves(linen_module, variables)
    row = row_of(linen_module)
    check_fields(linen_module, row, leaves)
    plan = row.plan(linen_module, leaves, ndim)
    check_leaves(linen_module, plan, leaves)
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for move in plan.moves:
        made = move.to_haiku(*[leaves[key] for key in move.flax])
        for (module_name, leaf), value in zip(move.addresses(name), made, strict=True):
            trees[move.is_state].setdefault(module_name, {})[leaf] = value
    exact = row.exact and getattr(linen_module, "use_fast_variance", True)
    arguments = (plan.arguments, plan.call, plan.call_arguments)
    return Twin(name, row.layer, *arguments, *trees, exact, list(variables), plan.moves)
