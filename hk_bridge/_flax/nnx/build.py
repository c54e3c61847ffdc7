"""Building the module of a wrapped NNX class: with values at init, else its graph."""

from collections.abc import Sequence
import inspect
from typing import Any

from flax import nnx
import jax
from jax.interpreters import partial_eval
import numpy as np

from hk_bridge import _abstract
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
        return _with_data(cls(*args, **kwargs))
    return _with_data(cls(*args, rngs=streams.rngs_for(keys, given), **kwargs))


def _with_data(module: Any) -> Any:
    """`module` as it would be, had it been built outside of a trace.

    There NNX takes arrays in attributes for data; inside (flax 0.12.8) it takes tracers
    for what is static."""
    for _, part in nnx.iter_graph(module):
        if isinstance(part, nnx.Pytree):
            for name, value in list(vars(part).items()):
                if isinstance(value, jax.core.Tracer):
                    part.__setattr__(name, nnx.data(value))
    return module


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


def outline(
    cls: Any,
    args: Any,
    kwargs: Any,
    names: Sequence[str],
    keep_rngs: bool,
    memory: dict[str, Any],
) -> Any:
    """`cls(*args, **kwargs)` by shapes alone: no initialiser is in any program.

    Arrays in attributes, which are no Variables, have their values. Of classes and
    arguments that are known to be values it is remembered, and each time a new copy.

    Args:
      names: of the streams that the caller gave; none of them for those of init.
      memory: gets the graph of the copy.
    """
    known = dict(kwargs)
    names = tuple(sorted({*names, "params"} if names else streams.AT_INIT))
    if _has_streams(kwargs):
        names = tuple(sorted(known.pop("rngs")))
    key = key_of((cls, args, known, names, keep_rngs))
    found = None if key is None else _outlines.get(key)
    if found is None:
        found = _outline(cls, args, kwargs, names, keep_rngs)
    if key is not None:
        if len(_outlines) >= _MOST:
            _outlines.clear()
        _outlines[key] = found
    copies = [_copy(leaf.value) for leaf in found.leaves]
    bound = found.bind(copies, copies)
    memory["graph"] = found, bound.snapshot
    return bound.module


# The graphs of classes that were built before, by what is known to be a value.
_outlines: dict[Any, graph.Graph] = {}
_MOST = 256


def _has_streams(kwargs: Any) -> bool:
    return isinstance(kwargs.get("rngs"), nnx.Rngs)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, nnx.Variable) else value


def _outline(
    cls: Any, args: Any, kwargs: Any, names: Sequence[str], keep_rngs: bool
) -> graph.Graph:
    def make(key: Any) -> Any:
        if _has_streams(kwargs):
            return cls(*args, **{**kwargs, "rngs": nnx.clone(kwargs["rngs"])})
        if not takes_rngs(cls, args, kwargs):
            return cls(*args, **kwargs)
        rngs = streams.of_stand_ins(names)
        for _, stream in rngs.items():
            stream.key.set_value(key)
            stream.count.set_value(np.zeros((), np.uint32))  # counts without a trace
        return cls(*args, rngs=rngs, **kwargs)

    graphs: list[graph.Graph] = []

    def values(key: Any) -> list[Any]:
        graphs[:] = [graph.Graph(_with_data(make(key)), keep_rngs)]
        held = [leaf.value for leaf in graphs[0].leaves]
        return [v.get_raw_value() if isinstance(v, nnx.Variable) else v for v in held]

    def arrays(key: Any) -> list[Any]:
        of_all = zip(values(key), graphs[0].leaves, strict=True)
        return [value for value, leaf in of_all if leaf.kind is Kind.ARRAY]

    specs = _abstract.evaluate(values, streams.stand_in())
    leaves = graphs[0].leaves
    is_array = [leaf.kind is Kind.ARRAY for leaf in leaves]
    constants = iter(_constants(arrays, cls) if any(is_array) else ())
    return graphs[0].of_values(
        [
            next(constants)
            if leaf.kind is Kind.ARRAY
            else type(leaf.value).from_metadata(spec, leaf.value.get_metadata())
            for leaf, spec in zip(leaves, specs, strict=True)
        ]
    )


def _constants(arrays: Any, cls: Any) -> list[Any]:
    """The arrays in attributes, which no key may have a part in."""
    with jax.ensure_compile_time_eval():
        program = jax.make_jaxpr(arrays)(streams.stand_in()).jaxpr
        _, used = partial_eval.dce_jaxpr(program, [True] * len(program.outvars))
        if any(used):
            raise _errors.random_attribute(cls)
        made: list[Any] = jax.jit(arrays)(streams.stand_in())
    return made
