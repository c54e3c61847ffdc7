"""Flax variables as Haiku's params and state, and back. Needs neither framework."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import inspect
from typing import Any
from typing import NamedTuple

from hk_bridge import _errors
from hk_bridge import _names

Variables = Mapping[str, Any]  # {collection: nested dict}
Bundles = Mapping[str, Mapping[str, Any]]  # {Haiku module name: {leaf name: leaf}}
MutableBundles = dict[str, dict[str, Any]]

PARAMS = "params"


class Where(NamedTuple):
    """Where a leaf of Flax variables is: its collection, and its path there."""

    collection: str
    path: _names.Path


_LIFTED = "/~"  # where hk.experimental.flax.lift keeps the leaves at the top of a tree


def to_haiku(
    variables: Variables, *, name: str
) -> tuple[MutableBundles, MutableBundles]:
    """Haiku's `(params, state)` for the variables of a Flax module.

    The collection `params` goes to Haiku params, under `name` and the path of the Flax
    submodule; every other collection to Haiku state, under `name`, the collection and
    the path. Leaves are handed over untouched: no copy, no cast. Boxes
    (`nn.Partitioned` and any other `AxisMetadata`) are opened, since Haiku's leaves are
    plain arrays. A leaf is whatever is not a dict with string or int keys: a tuple or a
    dataclass stays whole.

    Args:
      variables: `{collection: nested dict}`, as `module.init` returns it; `FrozenDict`
        will do.
      name: the full name of the module in Haiku, `net` or `outer/~/net`.

    Returns:
      `(params, state)`, two new dicts `{module name: {leaf name: leaf}}`.

    Raises:
      VariablesError: `variables` is not a dict of dicts.

    >>> variables = {"params": {"Dense_0": {"bias": 0.0}}, "batch_stats": {"mean": 1.0}}
    >>> to_haiku(variables, name="net")
    ({'net/Dense_0': {'bias': 0.0}}, {'net/batch_stats': {'mean': 1.0}})
    """
    _errors.check_name(name)
    params: MutableBundles = {}
    state: MutableBundles = {}
    if not are_variables(variables):
        raise _errors.variables_type(variables)
    for collection, tree in variables.items():
        tree = unbox(tree)
        if not is_level(tree):
            raise _errors.collection_type(collection, tree)
        if collection == PARAMS:
            _flatten(tree, name, params)
        else:
            _flatten(tree, _names.join(name, (collection,)), state)
    return params, state


def to_flax(
    params: Bundles | None,
    state: Bundles | None,
    *,
    name: str,
    like: Variables | None = None,
) -> dict[str, dict[str, Any]]:
    """The variables of a Flax module in Haiku: the exact inverse of `to_haiku`.

    Entries of other modules are ignored. Leaves are handed over untouched. Trees that
    `hk.experimental.flax.lift` made under `name` are read as well.

    Args:
      params: Haiku params, `{module name: {leaf name: leaf}}`, of a whole network or of
        this module.
      state: Haiku state, likewise.
      name: the full name of the module in Haiku, `net` or `outer/~/net`.
      like: variables whose boxes (`nn.Partitioned` and the like) are put back around
        the leaves, for example `jax.eval_shape(module.init, key, x)`.

    Returns:
      `{collection: nested dict}`, new plain dicts, ready for `module.apply`.

    Raises:
      VariablesError: one path is a leaf as well as a module.

    >>> params = {"net/Dense_0": {"bias": 0.0}, "linear": {"w": 2.0}}
    >>> to_flax(params, {"net/batch_stats": {"mean": 1.0}}, name="net")
    {'params': {'Dense_0': {'bias': 0.0}}, 'batch_stats': {'mean': 1.0}}
    """
    _errors.check_name(name)
    variables: dict[str, dict[str, Any]] = {}
    for module_name, bundle in (params or {}).items():
        path = _names.split(name, module_name.removesuffix(_LIFTED))
        if path is not None:
            _insert(variables, (PARAMS, *path), bundle)
    for module_name, bundle in (state or {}).items():
        path = _names.split(name, module_name.removesuffix(_LIFTED))
        if path:  # `()` is the state of a Haiku module that has this name, too
            _insert(variables, path, bundle)
    return variables if like is None else rebox(variables, like)


def are_variables(value: Any) -> bool:
    """Whether `value` is a level of the tree whose names are those of collections."""
    return is_level(value) and all(isinstance(key, str) for key in value)


def is_level(value: Any) -> bool:
    """Whether `value` is a level of the tree: a dict with str or int keys."""
    return isinstance(value, Mapping) and all(
        isinstance(key, str) or type(key) is int for key in value
    )


def are_bundles(value: Any) -> bool:
    """Whether `value` has the levels of Haiku's params: `{module: {name: leaf}}`."""
    if not is_level(value) or not all(map(is_level, value.values())):
        return False
    return not any(is_level(leaf) for b in value.values() for leaf in b.values())


def is_box(value: Any) -> bool:
    """Whether `value` is a `flax.core.meta.AxisMetadata`, told by its methods."""
    return hasattr(type(value), "replace_boxed") and hasattr(type(value), "unbox")


def open_box(box: Any) -> Any:
    """What `box` holds, which may be a box again.

    `nn.Partitioned.unbox` adds a sharding constraint where a mesh is set; a conversion
    must not."""
    if "apply_constraint" in inspect.signature(type(box).unbox).parameters:
        return box.unbox(apply_constraint=False)
    return box.unbox()


def unbox(value: Any) -> Any:
    """`value` without its boxes."""
    while is_box(value):
        value = open_box(value)
    return value


def rebox(tree: Any, like: Any) -> Any:
    """`tree` with the boxes that `like` has in the same places."""
    if is_box(like):
        return like.replace_boxed(rebox(tree, open_box(like)))
    if is_level(like) and is_level(tree):
        return {key: rebox(value, like.get(key)) for key, value in tree.items()}
    return tree


def address(name: str, where: Where) -> tuple[str, str]:
    """Where a leaf of the module `name` lives: Haiku's module name and leaf name.

    >>> address("net", Where("params", ("Dense_0", "bias")))
    ('net/Dense_0', 'bias')
    >>> address("net", Where("stats", ("mean",)))
    ('net/stats', 'mean')
    """
    collection, path = where
    parents = path[:-1] if collection == PARAMS else (collection, *path[:-1])
    return _names.join(name, parents), _names.escape(path[-1])


def leaves(variables: Variables) -> Iterator[tuple[Where, Any]]:
    """Every leaf of `variables`, boxes open, with where it is.

    >>> for where, leaf in leaves({"params": {"Dense_0": {"bias": 0.0}}}):
    ...     print(where, leaf)
    Where(collection='params', path=('Dense_0', 'bias')) 0.0
    """
    for collection, tree in variables.items():
        for path, leaf in _walk(unbox(tree)):
            yield Where(collection, path), leaf


def below(where: Where, value: Any) -> Iterator[Where]:
    """Where each leaf is of a `value` at `where`; `where` itself of an empty level.

    >>> [w.path for w in below(Where("cache", ("a",)), {"b": 1, "c": {"d": 2}})]
    [('a', 'b'), ('a', 'c', 'd')]
    """
    if is_level(value := unbox(value)) and value:
        for path, _ in _walk(value):
            yield Where(where.collection, (*where.path, *path))
    else:
        yield where


def find(variables: Variables, where: Where, default: Any = None) -> Any:
    """The leaf of `variables` at `where`, its box open.

    >>> find({"params": {"a": {"w": 1.0}}}, Where("params", ("a", "w")))
    1.0
    """
    tree: Any = variables
    for part in (where.collection, *where.path):
        tree = unbox(tree)
        if not is_level(tree) or part not in tree:
            return default
        tree = tree[part]
    return unbox(tree)


def map_leaves(
    function: Callable[[Where, Any], Any], tree: Any, path: _names.Path = ()
) -> Any:
    """`tree` with `function(where, leaf)` for each leaf; boxes stay.

    Args:
      path: where `tree` is, the collection first; `()` is of whole variables.

    >>> map_leaves(lambda where, leaf: where.path, {"params": {"a": {"w": 1.0}}})
    {'params': {'a': {'w': ('a', 'w')}}}
    """
    if is_box(tree):
        return tree.replace_boxed(map_leaves(function, open_box(tree), path))
    if is_level(tree):
        return {k: map_leaves(function, v, (*path, k)) for k, v in tree.items()}
    return function(Where(path[0], path[1:]), tree)


def replace(variables: Variables, new: Mapping[Where, Any]) -> dict[str, Any]:
    """`variables` with other leaves in some places; boxes stay."""
    replaced: dict[str, Any] = map_leaves(new.get, variables)
    return replaced


def _walk(tree: Mapping[str, Any]) -> Iterator[tuple[_names.Path, Any]]:
    for key, value in tree.items():
        value = unbox(value)
        if is_level(value):
            for path, leaf in _walk(value):
                yield (key, *path), leaf
        else:
            yield (key,), value


def insert(variables: dict[str, Any], new: Mapping[Where, Any]) -> dict[str, Any]:
    """`variables` with leaves put in, in place, where there are none."""
    for (collection, path), leaf in new.items():
        _insert(variables, (collection, *path[:-1]), {_names.escape(path[-1]): leaf})
    return variables


def make_level(variables: dict[str, Any], path: _names.Path) -> dict[str, Any]:
    """The level of `variables` at `path`, the collection first; made if not there."""
    level = variables
    for part in path:
        level = level.setdefault(part, {})
    return level


def place(variables: dict[str, Any], where: Where, leaf: Any) -> None:
    """Puts a leaf into `variables`, in place, whatever is there."""
    parents = (where.collection, *where.path[:-1])
    make_level(variables, parents)[where.path[-1]] = leaf


def empty_bundles(variables: Variables, *, name: str) -> tuple[list[str], list[str]]:
    """The module names that have no leaves in `to_haiku(variables, name=name)`."""
    params: list[str] = []
    state: list[str] = []
    for collection, tree in variables.items():
        own = collection == PARAMS
        path = () if own else (collection,)
        for empty in empty_paths(unbox(tree), path):
            (params if own else state).append(_names.join(name, empty))
    return params, state


def empty_paths(tree: Mapping[str, Any], path: _names.Path) -> Iterator[_names.Path]:
    if not tree:
        yield path
    for key, value in tree.items():
        value = unbox(value)
        if is_level(value):
            yield from empty_paths(value, (*path, key))


def _flatten(
    tree: Mapping[str, Any], module_name: str, bundles: MutableBundles
) -> None:
    tree = {key: unbox(value) for key, value in tree.items()}
    bundle = {_names.escape(k): v for k, v in tree.items() if not is_level(v)}
    if bundle or not tree:
        bundles[module_name] = bundle
    for key, value in tree.items():
        if is_level(value):
            _flatten(value, _names.join(module_name, (key,)), bundles)


def _insert(
    variables: dict[Any, Any], path: _names.Path, bundle: Mapping[str, Any]
) -> None:
    level = variables
    for part in path:
        level = level.setdefault(part, {})
        if not isinstance(level, dict):
            raise _errors.leaf_and_module(path)
    for name, leaf in bundle.items():
        key = _names.unescape(name)
        if key in level:
            raise _errors.leaf_and_module((*path, key))
        level[key] = leaf
