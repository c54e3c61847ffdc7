"""Both networks as programs of their weights and inputs."""

from collections.abc import Mapping
import inspect
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._proof import graph
from hk_bridge._proof.sides import Inputs
from hk_bridge.migrate._matching.trees import leaves_of
from hk_bridge.migrate._matching.trees import tree_of

hk = _haiku.native


class Given(NamedTuple):
    """What both networks are called with.

    Attributes:
      args: of both.
      kwargs: of both.
      of_flax: keywords of Flax alone.
      of_haiku: keywords of Haiku alone.
      at_init: keywords of Haiku at init alone.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    of_flax: Mapping[str, Any]
    of_haiku: Mapping[str, Any]
    at_init: Mapping[str, Any]


class Network(NamedTuple):
    """One network, as a function of its leaves.

    Attributes:
      leaves: by name, arrays or shapes.
      call: what it gives for leaves in this order and for arguments, by names: `output`
        and the state that it leaves.
      traced: the program.
    """

    leaves: dict[str, Any]
    call: Any
    traced: _abstract.Traced


def variables_of(module: Any, variables: Any) -> Any:
    """The variables that are meant: those given, or else those that a module holds."""
    module, bound = _flax.unbound(module)
    held: Any = _of_graph(module).init(None) if _flax.is_nnx(module) else bound
    variables = held if variables is None else _layout.opened(variables)
    _layout.bundles(variables, name="net")  # refuses what has not the form of variables
    for collection in held if _flax.is_nnx(module) else ():
        if collection not in variables:
            raise _errors.lacks_collection(collection, list(variables))
    return variables


def _of_graph(module: Any) -> graph.Graph:
    return graph.Graph(module, None, frozenset(), None, False)


def flax_network(module: Any, variables: Any, given: Given) -> Network:
    """A module of Flax with its variables."""
    module, _ = _flax.unbound(module)
    native: Any = _of_graph(module) if _flax.is_nnx(module) else _Linen(module)
    tree = _layout.insert({}, dict(_layout.leaves(variables)))
    wheres = {_layout.spelled(where): where for where, _ in _layout.leaves(tree)}
    leaves = {_layout.spelled(where): leaf for where, leaf in _layout.leaves(tree)}

    def call(values: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        new = {wheres[name]: v for name, v in zip(leaves, values, strict=True)}
        inputs = Inputs({}, args, {**kwargs, **given.of_flax})
        output, after = native.apply(inputs, _layout.replace(tree, new))
        left = {_layout.spelled(where): leaf for where, leaf in _layout.leaves(after)}
        kept = {name: left[name] for name in leaves if name in left}
        params = f"{_layout.PARAMS}/"
        kept = {name: v for name, v in kept.items() if not name.startswith(params)}
        return {"output": output, "after": kept}

    specs = [_spec(leaf) for leaf in leaves.values()]
    return Network(leaves, call, _traced(call, specs, given))


class _Linen:
    """A linen module, called with variables."""

    def __init__(self, module: Any):
        self._module = module

    def apply(self, inputs: Inputs, variables: Any) -> tuple[Any, Any]:
        """The output, and the variables after the call."""
        mutable = [c for c in variables if c != _layout.PARAMS]
        args, kwargs = inputs.args, inputs.kwargs
        made = self._module.apply(variables, *args, mutable=mutable, **kwargs)
        return made[0], {**variables, **made[1]}


def haiku_network(transformed: Any, given: Given) -> Network:
    """A native Haiku network, with the shapes of its weights."""
    stateful = isinstance(transformed, hk.TransformedWithState)
    keyed = "rng" in inspect.signature(transformed.apply).parameters
    key = jax.random.PRNGKey(0)

    def init() -> Any:
        kwargs = {**given.kwargs, **given.of_haiku, **given.at_init}
        # Haiku's averages mix dtypes, also where evaluation does not.
        mixed = jax.numpy_dtype_promotion("standard")
        with hk.intercept_methods(_training), mixed:
            made = transformed.init(key, *given.args, **kwargs)
        return made if stateful else (made, {})

    params, state = jax.eval_shape(init)
    leaves = dict(leaves_of(params, state))

    def call(values: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        trees = tree_of(dict(zip(leaves, values, strict=True)))
        kwargs = {**kwargs, **given.of_haiku}
        holders = trees if stateful else trees[:1]
        rng = (key,) if keyed else ()
        made = transformed.apply(*holders, *rng, *args, **kwargs)
        output, after = made if stateful else (made, {})
        left = dict(leaves_of({}, after))
        return {"output": output, "after": left}

    return Network(leaves, call, _traced(call, list(leaves.values()), given))


def _traced(call: Any, specs: Any, given: Given) -> _abstract.Traced:
    return _abstract.trace(call, list(specs), given.args, dict(given.kwargs))


def _spec(leaf: Any) -> jax.ShapeDtypeStruct:
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _training(
    method: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Lets `hk.BatchNorm` make its state, which it does not in evaluation."""
    called = context.method_name == "__call__"
    if called and isinstance(context.module, hk.BatchNorm):
        signature = inspect.signature(hk.BatchNorm.__call__)
        bound = signature.bind(context.module, *args, **kwargs)
        bound.arguments["is_training"] = True
        return method(*bound.args[1:], **bound.kwargs)
    return method(*args, **kwargs)
