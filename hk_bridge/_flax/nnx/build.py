"""Building the module of a wrapped NNX class: with values at init, else its graph."""

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import inspect
from typing import Any
from typing import NamedTuple

from flax import nnx
import jax
from jax.extend import core
from jax.interpreters import partial_eval
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge._flax.known import is_fixed
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
    key = key_of((cls, args, known, names, keep_rngs, _flags()))
    mesh = jax.sharding.get_abstract_mesh()  # which the shapes are of
    key = None if key is None else (key, mesh)
    outline = None if key is None else _outlines.get(key)
    if outline is None or key_of(outline.changing) != outline.key:
        outline = _Outline(*_outline(cls, args, kwargs, names, keep_rngs))
    has_arrays = any(leaf.kind is Kind.ARRAY for leaf in outline.graph.leaves)
    of_mesh = has_arrays and not mesh.empty  # of its devices, which nothing here tells
    if key is not None and outline.key is not None and not of_mesh:
        if len(_outlines) >= _MOST:
            _outlines.clear()
        _outlines[key] = outline
    found = outline.graph
    copies = [_copy(leaf.value) for leaf in found.leaves]
    bound = found.bind(copies, copies)
    memory["graph"] = found, bound.snapshot
    return bound.module


class _Outline(NamedTuple):
    """A graph that may be used again, while its lists and dicts are what they were.

    Attributes:
      changing: what it has that code may write into: all copies have the same.
      key: of these, as they were made; None if they are not known to be values.
    """

    graph: graph.Graph
    changing: list[Any]
    key: Any


# What was built before, by what is known to be a value.
_outlines: dict[Any, _Outline] = {}
_MOST = 256


def _flags() -> Any:
    """What else has a part in the arrays and Variables that a class makes."""
    flags: Any = jax.config
    return (
        *(flags.jax_enable_x64, flags.jax_numpy_dtype_promotion),
        *(flags.jax_default_matmul_precision, flags.jax_default_prng_impl),
        nnx.using_eager_sharding(),
        dict(nnx.var_defaults()) if hasattr(nnx, "var_defaults") else None,  # 0.12.2
    )


def _has_streams(kwargs: Any) -> bool:
    return isinstance(kwargs.get("rngs"), nnx.Rngs)


def _copy(value: Any) -> Any:
    return value.copy() if isinstance(value, nnx.Variable) else value


def _outline(
    cls: Any, args: Any, kwargs: Any, names: Sequence[str], keep_rngs: bool
) -> tuple[graph.Graph, list[Any], Any]:
    def make(key: Any) -> Any:
        given, named = _own((args, kwargs))
        if not takes_rngs(cls, args, kwargs):
            return cls(*given, **named)
        rngs = streams.of_stand_ins(names)
        for _, stream in rngs.items():
            stream.key.set_value(key)
            stream.count.set_value(np.zeros((), np.uint32))  # counts without a trace
        return cls(*given, rngs=rngs, **named)

    graphs: list[graph.Graph] = []

    def values(key: Any) -> list[Any]:
        found = graph.Graph(_with_data(make(key)), keep_rngs)
        held = [leaf.value for leaf in found.leaves]
        graphs[:] = [found.of_values(list(map(_without_tracers, held)))]
        return [v.get_raw_value() if isinstance(v, nnx.Variable) else v for v in held]

    def arrays(key: Any) -> list[Any]:
        of_all = zip(values(key), graphs[0].leaves, strict=True)
        return [value for value, leaf in of_all if _is_made(leaf)]

    def outline() -> graph.Graph:
        specs = _abstract.evaluate(values, streams.stand_in())
        found = graphs[0]
        is_made = any(map(_is_made, found.leaves))
        constants = iter(_constants(arrays, cls) if is_made else ())
        pairs = zip(found.leaves, specs, strict=True)
        return found.of_values([_outlined(*pair, constants) for pair in pairs])

    found = _of_values_known(outline, cls)
    changing = [value for value in found.statics if not is_fixed(value)]
    return found, changing, key_of(changing)


def _of_values_known(outline: Callable[[], graph.Graph], cls: Any) -> graph.Graph:
    """`outline()`, with the values at hand that no key has a part in, if it needs them.

    Code may read numbers out of arrays; and NNX's own transforms do to arrays in
    attributes what they do to data only where these are no tracers. Else what is
    computed has the bits that it has outside of a trace."""
    found = None
    with contextlib.suppress(*_NEED_VALUES):
        found = outline()
        if not any(leaf.kind is Kind.ARRAY for leaf in found.leaves):
            return found
    try:
        with jax.ensure_compile_time_eval():
            known = outline()
    except _NEED_VALUES as error:
        error.add_note(_errors.note_outline(cls))
        raise
    return known if found is None or _arrays(found) != _arrays(known) else found


def _arrays(found: graph.Graph) -> list[Any]:
    """Where arrays in attributes are, and their shapes."""
    of_all = [leaf for leaf in found.leaves if leaf.kind is Kind.ARRAY]
    return [(leaf.path, np.shape(leaf.value)) for leaf in of_all]


# Code that wants to know what is in an array, which has no values.
_NEED_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _own(given: Any) -> Any:
    """The arguments, with copies of what is of NNX: its counts change."""
    args, kwargs = given
    known: dict[int, Any] = {}

    def own(value: Any) -> Any:
        if not isinstance(value, (nnx.Pytree, nnx.Variable)):
            return value
        if id(value) not in known:
            known[id(value)] = nnx.clone(value)
        return known[id(value)]

    return [own(x) for x in args], {name: own(x) for name, x in kwargs.items()}


_MADE = object()  # stands for a tracer


def _without_tracers(value: Any) -> Any:
    """A leaf that may outlive its trace: a Variable that holds nothing, or an array."""
    if isinstance(value, nnx.Variable):
        variable: Any = value
        return type(variable).from_metadata(None, variable.get_metadata())
    return _MADE if isinstance(value, jax.core.Tracer) else value


def _is_made(leaf: graph.Leaf) -> bool:
    """Whether a leaf is an array, no Variable, that the class computes."""
    return leaf.value is _MADE


def _outlined(leaf: graph.Leaf, spec: Any, constants: Any) -> Any:
    """What the outline has for a leaf: a Variable of shapes, or an array."""
    if leaf.kind is Kind.ARRAY:
        return next(constants) if _is_made(leaf) else leaf.value
    variable: Any = leaf.value
    return type(variable).from_metadata(spec, variable.get_metadata())


def _constants(arrays: Any, cls: Any) -> list[Any]:
    """The arrays in attributes, which no key may have a part in.

    They are computed one operation after another, as the class does outside of `jit`:
    what XLA compiles as one may differ in the last bit."""
    program = jax.make_jaxpr(arrays)(streams.stand_in())
    jaxpr = program.jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    if any(used):
        raise _errors.random_attribute(cls)
    needed = program.replace(jaxpr=jaxpr.replace(eqns=_needed(jaxpr)))
    compute = core.jaxpr_as_fun(needed)
    made: list[Any]
    if any(isinstance(const, jax.core.Tracer) for const in program.consts):
        made = compute(streams.stand_in())  # of arguments that are being traced
        return made
    with jax.ensure_compile_time_eval():
        made = compute(streams.stand_in())
    return made


def _needed(jaxpr: Any) -> list[Any]:
    """The equations on which the outputs depend, each whole."""
    wanted, found = set(map(id, jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(map(id, equation.outvars)):
            wanted.update(map(id, equation.invars))
            found.append(equation)
    return found[::-1]
