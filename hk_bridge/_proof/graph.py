"""An NNX module by itself: split, merged, its streams fed, run and split again.

That is how a call is replayed in Flax alone. Nothing here is shared with the bridge.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import sys
from typing import Any
import warnings

import jax
import jax.numpy as jnp

from hk_bridge import _layout
from hk_bridge._layout import Where

Tree = Any


def _nnx() -> Any:
    """`flax.nnx`, if somebody imported it; else nothing is of it."""
    return sys.modules.get("flax.nnx")


def is_graph(module: Any) -> bool:
    """Whether `module` is an NNX module."""
    return _nnx() is not None and isinstance(module, _nnx().Module)


@dataclasses.dataclass(frozen=True)
class Graph:
    """An NNX module as a `Side`.

    Attributes:
      module: which holds its initial values. It does not change.
      method: what to call.
      sown: collections that live for one call, beside Flax's own.
      given: variables in place of the initial ones, a part or all.
      keep_rngs: whether keys and counts of streams are variables like others.
    """

    module: Any
    method: Any
    sown: frozenset[str]
    given: _layout.Variables | None
    keep_rngs: bool

    def init(self, inputs: Any) -> Tree:
        """The values that the module holds, or was given in their place."""
        held: dict[str, Any] = {}
        for where, variable in self._kept(self.module):
            _layout.place(held, where, variable.get_raw_value())
        return _layout.replace(held, dict(_layout.leaves(self.given or {})))

    def apply(self, inputs: Any, variables: Tree) -> tuple[Tree, Tree]:
        """The output, and the variables after the call."""
        nnx, (rngs, args, kwargs) = _nnx(), inputs
        graphdef, state = nnx.split(self.module)
        flat = dict(nnx.to_flat_state(state))
        for path, variable in flat.items():
            if isinstance(variable, nnx.Variable):
                flat[path] = variable.copy()  # else it is that of the instance
        for where, variable in self._kept(self.module):
            flat[where.path] = variable.replace(_found(variables, where))
        module = nnx.merge(graphdef, nnx.from_flat_state(flat))
        if not self.keep_rngs:
            _feed(module, rngs)
        with warnings.catch_warnings():
            # Inside of `nnx.capture` modules have another attribute, which they see.
            warnings.filterwarnings("ignore", r"\s*Using 'Module\.\w+\(\)' outside")
            output = _function(self.method)(module, *args, **kwargs)
        after = dict(variables)
        for where, variable in self._kept(module):
            path = (where.collection, *where.path)
            after = _put(after, path, variable.get_raw_value())
        return output, after

    def _kept(self, module: Any) -> Iterator[tuple[Where, Any]]:
        """The Variables that outlive a call, and where each is."""
        nnx = _nnx()
        for path, variable in nnx.to_flat_state(nnx.state(module)):
            if not isinstance(variable, nnx.Variable):
                continue  # an array that is an attribute: a constant of the graph
            if isinstance(variable, nnx.RngState) and not self.keep_rngs:
                continue
            if isinstance(variable, nnx.Intermediate):
                continue  # what `sow` and `perturb` make, for one call
            collection = _collection(type(variable))
            if collection not in self.sown:
                yield Where(collection, path), variable


def _collection(cls: type) -> str:
    """The name that NNX has for a type of Variables, else that of the class."""
    try:
        return str(_nnx().variablelib.variable_name_from_type(cls))
    except ValueError:
        return cls.__name__


def _feed(module: Any, rngs: Mapping[str, Any]) -> None:
    """Sets the streams of `module`: each by its name, or by the key of `default`.

    Those that `default` answers for are numbered together, after its own. A stream
    that has no key keeps what it has, for no one to use, and counts from zero."""
    nnx = _nnx()
    streams = [s for _, s in nnx.iter_graph(module) if isinstance(s, nnx.RngStream)]
    tags = [stream.key.tag for stream in streams]
    nnx.reseed(module, policy="match_shape", **{t: rngs[t] for t in tags if t in rngs})
    seeds = nnx.Rngs(rngs.get("default"))
    for _ in range(tags.count("default") if "default" in rngs else 0):
        seeds()
    for stream in (s for s in streams if s.key.tag not in rngs):
        shape = stream.key.get_raw_value().shape
        if "default" in rngs:
            key = seeds()
            stream.key.set_value(jax.random.split(key, shape) if shape else key)
        stream.count.set_value(jnp.zeros(shape, jnp.uint32))


def _function(method: Any) -> Callable[..., Any]:
    """`method`, as `FlaxModule` takes it, as a function of the module."""
    if method is None:
        return lambda module, *args, **kwargs: module(*args, **kwargs)
    if isinstance(method, str):
        return lambda module, *args, **kwargs: getattr(module, method)(*args, **kwargs)
    return lambda module, *args, **kwargs: method(module, *args, **kwargs)


def _found(variables: Tree, where: Where) -> Any:
    tree = variables[where.collection]
    for part in where.path:
        tree = tree[part]
    return tree


def _put(tree: Mapping[Any, Any], path: tuple[Any, ...], value: Any) -> dict[Any, Any]:
    """`tree` with `value` at `path`; the tree itself stays."""
    part, *rest = path
    inner = _put(tree.get(part, {}), tuple(rest), value) if rest else value
    return {**tree, part: inner}
