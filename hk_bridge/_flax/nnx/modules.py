"""What an NNX module is to the bridge: its methods and the shapes of its leaves."""

from collections.abc import Callable
import inspect
from typing import Any

from flax import nnx
from flax.nnx.bridge import variables as variable_boxes

from hk_bridge import _layout
from hk_bridge._flax.nnx import graph


def resolve(module: Any, method: Any) -> Callable[..., Any]:
    """`method` as a function of a copy of `module`: a name, a method or a function.

    Raises:
      AttributeError, TypeError: as Python does, for what is not there or not callable.
    """
    if method is None or method == "__call__":
        if not callable(module):
            raise TypeError(f"{type(module).__name__!r} object is not callable")
        return _call
    if isinstance(method, str):
        return _named(module, method)
    if isinstance(getattr(method, "__self__", None), nnx.Module):
        return _bound(module, method)
    if isinstance(method, nnx.Module):
        return _bound(module, method.__call__)
    if not callable(method):
        raise TypeError(
            f"method= must be a name, a method or a function, not {method!r}."
        )
    function: Callable[..., Any] = method
    return function


def _call(module: Any, *args: Any, **kwargs: Any) -> Any:
    return module(*args, **kwargs)


def _named(module: Any, name: str) -> Callable[..., Any]:
    value = getattr(module, name)
    if not callable(value):
        raise TypeError(
            f"'{type(module).__name__}.{name}' must be a callable, got {type(value)}."
        )

    def run(module: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(module, name)(*args, **kwargs)

    return run


def _bound(module: Any, method: Any) -> Callable[..., Any]:
    """A bound method, of the module or of a part of it."""
    owner, function = method.__self__, getattr(method, "__func__", None)
    if not inspect.isfunction(function):
        raise TypeError(f"method= is bound to a module in a way unknown: {method!r}.")
    paths = [path for path, part in nnx.iter_modules(module) if part is owner]
    if not paths:
        return function

    def run(module: Any, *args: Any, **kwargs: Any) -> Any:
        return function(graph.at(module, paths[0]), *args, **kwargs)

    return run


def annotated(module: Any, variables: dict[str, Any]) -> dict[str, Any]:
    """`variables` in boxes that say how they are to be sharded."""
    boxed: dict[str, Any] = _layout.replace(variables, {})
    for leaf in graph.Graph(module, False).kept:
        if leaf.where and any(map(leaf.value.has_metadata, _SHARDING)):
            value = _layout.find(variables, leaf.where)  # which may be a dict
            metadata = leaf.value.get_metadata()
            box: Any = variable_boxes.NNXMeta(type(leaf.value), value, metadata)
            _layout.place(boxed, leaf.where, box)
    return boxed


# The metadata for it, also in older versions.
_SHARDING = ("out_sharding", "sharding_names", "sharding")


def unused_streams(module: Any, found: graph.Graph) -> set[int]:
    """The streams whose keys go to initialisers that do nothing with them.

    `nnx.RNN` asks for a key at each call, for a carry that starts at zero."""
    unused: set[int] = set()
    for index, leaf in enumerate(found.keys):
        owner = graph.at(module, leaf.path[:-2])
        cell = owner.cell if isinstance(owner, nnx.RNN) else None
        own = type(cell).__module__.startswith("flax.nnx.")
        if own and getattr(cell, "carry_init", cell) is None:
            unused.add(index)
    return unused


def specs(module: Any, keep_rngs: bool) -> dict[str, Any]:
    """The shapes and dtypes of all leaves that are kept."""
    leaves = graph.Graph(module, keep_rngs).kept
    found = {leaf.where: graph.spec(leaf.value) for leaf in leaves if leaf.where}
    return _layout.insert({}, found)
