"""Flax variables as Haiku's params and state, and back. Needs neither framework."""

from collections.abc import Mapping
from typing import Any

from hk_bridge import _errors
from hk_bridge._layout import names
from hk_bridge._layout import tree as trees
from hk_bridge._layout import whole
from hk_bridge._layout.where import PARAMS

Bundles = Mapping[str, Mapping[str, Any]]  # {Haiku module name: {leaf name: leaf}}
MutableBundles = dict[str, dict[str, Any]]

Levels = dict[names.Path, dict[Any, Any]]  # that are being made, by their place

_LIFTED = "/~"  # where hk.experimental.flax.lift keeps the leaves at the top of a tree


def to_haiku(
    variables: trees.Variables, *, name: str
) -> tuple[MutableBundles, MutableBundles]:
    """Haiku's `(params, state)` for the variables of a Flax module.

    The collection `params` goes to Haiku params, under `name` and the path of the Flax
    submodule; every other collection to Haiku state, under `name`, the collection and
    the path. Leaves are handed over untouched: no copy, no cast. Boxes
    (`nn.Partitioned` and any other `AxisMetadata`) are opened, since Haiku's leaves are
    plain arrays. A level is a `dict` or a `FrozenDict` with string or int keys, and a
    leaf is whatever else: a tuple or a dataclass stays whole. One that is a Mapping (an
    `OrderedDict`, a dataclass of chex) is wrapped, since Haiku makes dicts of those.

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
    if not trees.are_variables(variables):
        raise _errors.variables_type(variables)
    for collection, tree in variables.items():
        tree = trees.unbox(tree)
        if not trees.is_level(tree):
            raise _errors.collection_type(collection, tree)
        if collection == PARAMS:
            _flatten(tree, name, params)
        else:
            _flatten(tree, names.join(name, (collection,)), state)
    return params, state


def to_flax(
    params: Bundles | None,
    state: Bundles | None,
    *,
    name: str,
    like: trees.Variables | None = None,
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
    levels: Levels = {(): variables}
    for module_name, bundle in (params or {}).items():
        path = names.split(name, module_name.removesuffix(_LIFTED))
        if path is not None:
            _fill(levels, (PARAMS, *path), bundle)
    for module_name, bundle in (state or {}).items():
        path = names.split(name, module_name.removesuffix(_LIFTED))
        if path:  # `()` is the state of a Haiku module that has this name, too
            _fill(levels, path, bundle)
    return variables if like is None else trees.rebox(variables, dict(like))


def _fill(levels: Levels, path: names.Path, bundle: Mapping[str, Any]) -> None:
    """Puts the leaves of `bundle` at `path`, and makes the levels that lead there."""
    for end in range(1, len(path) + 1):
        here = path[:end]
        if here not in levels:
            levels[here] = {}
            _put(levels, here, levels[here])
    for name, leaf in bundle.items():
        _put(levels, (*path, names.unescape(name)), whole.bare(leaf))


def _put(levels: Levels, path: names.Path, value: Any) -> None:
    level = levels[path[:-1]]
    if path[-1] in level:
        raise _errors.leaf_and_module(path)
    level[path[-1]] = value


def are_bundles(value: Any) -> bool:
    """Whether `value` has the levels of Haiku's params: `{module: {name: leaf}}`."""
    if not _is_bundle(value) or not all(map(_is_bundle, value.values())):
        return False
    return not any(trees.is_level(leaf) for b in value.values() for leaf in b.values())


def _is_bundle(value: Any) -> bool:
    """Whether `value` is a dict of leaves, which in Haiku may be of any class."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def empty_bundles(
    variables: trees.Variables, *, name: str
) -> tuple[list[str], list[str]]:
    """The module names that have no leaves in `to_haiku(variables, name=name)`."""
    params: list[str] = []
    state: list[str] = []
    for collection, tree in variables.items():
        own = collection == PARAMS
        path = () if own else (collection,)
        for empty in trees.empty_paths(trees.unbox(tree), path):
            (params if own else state).append(names.join(name, empty))
    return params, state


def _flatten(
    tree: Mapping[str, Any], module_name: str, bundles: MutableBundles
) -> None:
    tree = {key: trees.unbox(value) for key, value in tree.items()}
    leaves = {k: v for k, v in tree.items() if not trees.is_level(v)}
    bundle = {names.escape(k): whole.keep(v) for k, v in leaves.items()}
    if bundle or not tree:
        bundles[module_name] = bundle
    for key, value in tree.items():
        if trees.is_level(value):
            _flatten(value, names.join(module_name, (key,)), bundles)
