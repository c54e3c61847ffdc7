"""Building the module of a wrapped NNX class: with values at init, else its graph."""

import inspect
from typing import Any

from flax import nnx
import jax
from jax.interpreters import partial_eval
import numpy as np

from hk_bridge import _errors
from hk_bridge._flax.known import key_of
from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import streams
from hk_bridge._flax.nnx.graph import Kind


def build(
    cls: Any, args: Any, kwargs: Any, keys: streams.NnxStreams, given: bool
) -> Any:
    """`cls(*args, rngs=nnx.Rngs(params=key, dropout=key2), **kwargs)`.

    Args:
      keys: gives the keys, each drawn if it is used.
      given: whether the caller gave keys.
    """
    if not takes_rngs(cls, args, kwargs):
        return cls(*args, **kwargs)
    return cls(*args, rngs=streams.rngs_for(keys, given), **kwargs)


def takes_rngs(cls: Any, args: Any, kwargs: Any) -> bool:
    """Whether the class takes `rngs`, and was not given any."""
    if cls.__init__ is object.__init__:
        return False
    signature = inspect.signature(cls.__init__)
    kinds = [p.kind for p in signature.parameters.values()]
    named = "rngs" in signature.parameters
    if not named and inspect.Parameter.VAR_KEYWORD not in kinds:
        return False
    try:
        bound = signature.bind_partial(None, *args, **kwargs)
    except TypeError:
        return named  # the class itself will say what is wrong
    return "rngs" not in bound.arguments and "rngs" not in kwargs


def outline(cls: Any, args: Any, kwargs: Any) -> Any:
    """`cls(*args, **kwargs)` by shapes alone: no initialiser is in any program.

    Arrays in attributes, which are no Variables, have their values. Of classes and
    arguments that are known to be values it is remembered, and each time a new copy."""
    known = dict(kwargs)
    names = sorted(known.pop("rngs", ())) if _has_streams(kwargs) else None
    key = key_of((cls, args, known, names))
    if key is None:
        found, values = _outline(cls, args, kwargs)
    elif key in _outlines:
        found, values = _outlines[key]
    else:
        if len(_outlines) >= _MOST:
            _outlines.clear()
        found, values = _outlines[key] = _outline(cls, args, kwargs)
    copies = [_copy(value) for value in values]
    return found.bind(copies, copies).module


# The graphs of classes that were built before, by what is known to be a value.
_outlines: dict[Any, tuple[graph.Graph, list[Any]]] = {}
_MOST = 256


def _has_streams(kwargs: Any) -> bool:
    return isinstance(kwargs.get("rngs"), nnx.Rngs)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, nnx.Variable) else value


def _outline(cls: Any, args: Any, kwargs: Any) -> tuple[graph.Graph, list[Any]]:
    def make(key: Any) -> Any:
        if _has_streams(kwargs):
            return cls(*args, **{**kwargs, "rngs": nnx.clone(kwargs["rngs"])})
        if not takes_rngs(cls, args, kwargs):
            return cls(*args, **kwargs)
        rngs = streams.of_stand_ins(streams.AT_INIT)
        for _, stream in rngs.items():
            stream.key.set_value(key)
            stream.count.set_value(np.zeros((), np.uint32))  # counts without a trace
        return cls(*args, rngs=rngs, **kwargs)

    def arrays(key: Any) -> list[Any]:
        leaves = graph.Graph(make(key), True).leaves
        return [leaf.value for leaf in leaves if leaf.kind is Kind.ARRAY]

    found = graph.Graph(nnx.eval_shape(make, streams.stand_in()), True)
    held = [leaf for leaf in found.leaves if leaf.kind is Kind.ARRAY]
    values = iter(_constants(arrays, cls) if held else ())
    return found, [
        next(values) if leaf.kind is Kind.ARRAY else leaf.value for leaf in found.leaves
    ]


def _constants(arrays: Any, cls: Any) -> list[Any]:
    """The arrays in attributes, which no key may have a part in."""
    with jax.ensure_compile_time_eval():
        program = jax.make_jaxpr(arrays)(streams.stand_in()).jaxpr
        _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
        if any(used):
            raise _errors.random_attribute(cls)
        made: list[Any] = jax.jit(arrays)(streams.stand_in())
    return made
