"""What a function returns, by shape and dtype alone. Nothing is allocated."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core as jex
import numpy as np


def is_array(value: Any) -> bool:
    """Whether `value` has a shape and a dtype: an array, a tracer or a stand-in."""
    is_like = hasattr(value, "shape") and hasattr(value, "dtype")
    return is_like and not isinstance(value, type)  # as np.float32 has both


def copied(value: Any) -> Any:
    """`value` in containers of its own; arrays are not copied."""
    return value if is_array(value) else jax.tree.map(_as_it_is, value)


def _as_it_is(part: Any) -> Any:
    return part


def can_be_traced(value: Any) -> bool:
    """Whether JAX takes `value` for an array: a number, too."""
    return _is_traced(value) or isinstance(value, (bool, int, float, complex))


def _is_traced(value: Any) -> bool:
    """Whether `value` is an array of numbers or keys, and not of text or objects."""
    if not is_array(value):
        return False
    return not isinstance(value.dtype, np.dtype) or value.dtype.kind not in "OSUMm"


def evaluate(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`jax.eval_shape`, with whatever is no array handed on as it is.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x, train: {"y": x.sum() if train else x, "text": "a"}
    >>> evaluate(f, jax.ShapeDtypeStruct((2,), jnp.float32), train=True)
    {'text': 'a', 'y': ShapeDtypeStruct(shape=(), dtype=float32)}
    """
    arrays, leaves, treedef = _split((args, kwargs))
    made: list[Any] = []

    def call(arrays: list[Any]) -> list[Any]:
        args, kwargs = jax.tree.unflatten(treedef, filled(arrays, leaves))
        given, out = jax.tree.flatten(function(*args, **kwargs))
        made[:] = [None if can_be_traced(leaf) else leaf for leaf in given], out
        return [leaf if can_be_traced(leaf) else None for leaf in given]

    specs = jax.eval_shape(call, arrays)
    return jax.tree.unflatten(made[1], filled(specs, made[0]))


class Traced(NamedTuple):
    """A program and what it returns.

    Attributes:
      program: of the arrays alone, in the order of their trees.
      output: what the function returned, arrays by shape and dtype.
    """

    program: jex.ClosedJaxpr
    output: Any

    def path(self, position: int) -> str:
        """Where in the output an array is, by its position among the arrays."""
        leaves = jax.tree_util.tree_leaves_with_path(self.output)
        path, _ = [(path, leaf) for path, leaf in leaves if _is_traced(leaf)][position]
        return jax.tree_util.keystr(path) or "the output"


def trace(function: Callable[..., Any], *args: Any) -> Traced:
    """`jax.make_jaxpr`, with whatever is no array taken and returned as it is.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x, train: {"y": x.sum() if train else x, "text": "a"}
    >>> traced = trace(f, jax.ShapeDtypeStruct((2,), jnp.float32), True)
    >>> len(traced.program.eqns), traced.output["text"], traced.path(0)
    (1, 'a', "['y']")
    """
    arrays, leaves, treedef = _split(args)
    made: list[Any] = []

    def call(arrays: list[Any]) -> list[Any]:
        output = function(*jax.tree.unflatten(treedef, filled(arrays, leaves)))
        arrays, given, out = _split(output)
        made[:] = [None if _is_traced(leaf) else leaf for leaf in given], out
        return arrays

    program, specs = jax.make_jaxpr(call, return_shape=True)(arrays)
    return Traced(program, jax.tree.unflatten(made[1], filled(specs, made[0])))


def scanned(params: Mapping[str, Any]) -> tuple[int, int]:
    """Of the parameters of a scan's equation: how many inputs are constants, how many
    are carried. From JAX 0.12 on they are told by trees."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carried, _ = [len(part) for part in params["ft_in"].unpack()]
    return consts, carried


def are_same(one: Any, two: Any) -> bool:
    """Whether two leaves are one, or one is `copied` from the other."""
    if one is two or is_array(one) or is_array(two):
        return one is two
    forms: list[Any] = [jax.tree.structure(tree) for tree in (one, two)]
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=False)
    return bool(forms[0] == forms[1]) and all(a is b for a, b in pairs)


def are_equal(one: Any, two: Any) -> bool:
    """Whether two outputs have the same structure, and the same leaves but for arrays.

    What has no `==` of its own is equal to what has its type.
    """
    forms: list[Any] = [jax.tree.structure(tree) for tree in (one, two)]
    leaves = map(jax.tree.leaves, (one, two))
    return bool(forms[0] == forms[1]) and all(map(_is_equal, *leaves))


def _is_equal(one: Any, two: Any) -> bool:
    if _is_traced(one) and _is_traced(two):
        return True
    if type(one) is not type(two):
        return False
    if isinstance(one, (float, complex)):
        return repr(one) == repr(two)  # nan is nan, and 0.0 is not -0.0
    if isinstance(one, np.ndarray):
        same: bool = one.shape == two.shape
        return same and all(map(_is_equal, one.flat, two.flat))
    plain: Any = object.__eq__
    return type(one).__eq__ is plain or bool(one == two)


def _split(tree: Any) -> tuple[list[Any], list[Any], Any]:
    """The leaves of `tree`, None for what is no array; all of them; the structure."""
    leaves, treedef = jax.tree.flatten(tree)
    return [leaf if _is_traced(leaf) else None for leaf in leaves], leaves, treedef


def filled(part: Any, full: Any) -> Any:
    """The tree `part`, with what `full` has in the places of None."""
    fill = lambda x, y: y if x is None else x
    return jax.tree.map(fill, part, full, is_leaf=lambda x: x is None)


def describe(value: Any) -> str:
    """Dtype and shape of a leaf; of one that is a tree, those of all its arrays.

    >>> describe(np.zeros((2, 3), np.int32)), describe((np.zeros(2), None))
    ('int32[2,3]', '(float64[2], None)')
    """
    arrays, treedef = jax.tree.flatten(value)
    texts = [_array(array) for array in arrays]
    if texts and jax.tree_util.treedef_is_leaf(treedef):
        return texts[0]
    inside = str(treedef).removeprefix("PyTreeDef(").removesuffix(")")
    first, *rest = inside.split("*")
    if len(rest) != len(texts):  # a star in a name
        return f"{inside} of {', '.join(texts)}"
    return first + "".join(a + b for a, b in zip(texts, rest, strict=True))


def _array(value: Any) -> str:
    if not is_array(value):
        if not isinstance(value, (bool, int, float, complex, np.generic)):
            return type(value).__name__
        value = jax.eval_shape(lambda: value)
    return f"{value.dtype}[{','.join(map(str, value.shape))}]"
