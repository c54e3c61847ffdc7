"""Flax variables as Haiku's params and state, and back. Needs neither framework."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import MutableMapping
import difflib
from typing import Any

from hk_bridge import _errors
from hk_bridge._layout import names
from hk_bridge._layout import states
from hk_bridge._layout import tree as trees
from hk_bridge._layout import whole
from hk_bridge._layout.where import PARAMS

Bundles = Mapping[str, Mapping[str, Any]]  # {Haiku module name: {leaf name: leaf}}
# As `hk.MutableParams`, so that type checkers take one for the other.
MutableBundles = dict[str, MutableMapping[str, Any]]

Levels = dict[names.Path, dict[Any, Any]]  # that are being made, by their place

# The collections that Flax's own layers, transforms and `nnx.bridge` make.
FLAXS_OWN = {PARAMS, "batch_stats", "cache", "intermediates", "perturbations"}
FLAXS_OWN |= {"params_axes", "_overwrite_with_gradient", "nnx", "RngKey", "RngCount"}
FLAXS_OWN |= {"LoRAParam", "MetricState", "Variable"}
# What a saved state of training has beside `params`, and variables have not.
TRAINING = {"opt_state", "opt", "optimizer", "step"}

_LIFTED = "/~"  # where hk.experimental.flax.lift keeps the leaves at the top of a tree


def to_haiku(
    variables: trees.Variables,
    *,
    name: str,
    collections: str | Collection[str] | None = None,
) -> tuple[MutableBundles, MutableBundles]:
    """Haiku's `(params, state)` for the variables of a Flax module.

    The collection `params` goes to Haiku params, under `name` and the path of the Flax
    submodule; every other collection to Haiku state, under `name`, the collection and
    the path. Leaves are handed over untouched: no copy, no cast. Boxes
    (`nn.Partitioned` and any other `AxisMetadata`) are opened, since Haiku's leaves are
    plain arrays. A level is a `dict` or a `FrozenDict` with string or int keys, and a
    leaf is whatever else: a tuple or a dataclass stays whole. One that is a Mapping (an
    `OrderedDict`, a dataclass of chex) is wrapped, since Haiku makes dicts of those.

    Nothing in a tree tells the parameters of a module from its collections. So a tree
    without `params` has none but Flax's own collections (`batch_stats`, `cache`, ...),
    and one with `params` has nothing of a state of training (`opt_state`, `step`)
    beside it, unless `collections` says so.

    Args:
      variables: `{collection: nested dict}`, as `module.init` returns it; `FrozenDict`
        will do. Or an `nnx.State`, whose types say which collection has a Variable;
        its streams of keys are left out.
      name: the full name of the module in Haiku, `net` or `outer/~/net`.
      collections: the names on top that are collections, whatever they are called;
        what else there is, is left out. By default all that is there.

    Returns:
      `(params, state)`, two new dicts `{module name: {leaf name: leaf}}`.

    Raises:
      VariablesError: `variables` is not a dict of dicts, has a name on top that is no
        collection, or lacks one of `collections`.

    >>> variables = {"params": {"Dense_0": {"bias": 0.0}}, "batch_stats": {"mean": 1.0}}
    >>> to_haiku(variables, name="net")
    ({'net/Dense_0': {'bias': 0.0}}, {'net/batch_stats': {'mean': 1.0}})
    """
    _errors.check_name(name)
    if states.is_state(variables):  # whose types say what is a collection
        return bundles(states.opened(variables), name=name)
    variables = states.opened(variables)
    if not trees.are_variables(variables):
        raise _errors.variables_type(variables)
    if collections is None:
        check_collections(variables)
    else:
        variables = chosen(variables, collections)
    return bundles(variables, name=name)


def check_collections(
    variables: trees.Variables, known: Collection[str] = FLAXS_OWN
) -> None:
    """Refuses names on top that cannot be collections, as far as that is known."""
    if PARAMS not in variables:
        unknown = [key for key in variables if key not in known]
        if unknown:
            raise _errors.no_collections(unknown, list(variables))
        return
    training = TRAINING.intersection(variables).difference(known)
    if training:
        rest = [key for key in variables if key in FLAXS_OWN]
        raise _errors.training_state(sorted(training), rest)


def chosen(
    variables: trees.Variables, collections: str | Collection[str]
) -> dict[str, Any]:
    """The collections of `variables` that are asked for."""
    wanted = [collections] if isinstance(collections, str) else list(collections)
    for collection in wanted:
        if collection not in variables:
            raise _errors.lacks_collection(collection, list(variables))
    return {key: variables[key] for key in variables if key in wanted}


def bundles(
    variables: trees.Variables, *, name: str
) -> tuple[MutableBundles, MutableBundles]:
    """`to_haiku` for what is known to be variables."""
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

    If there is nothing of that name, it is wrong: that is an error, unless both trees
    are empty. A module without variables in a network that has some is not in the trees
    either; `like={}` says that it is one.

    Args:
      params: Haiku params, `{module name: {leaf name: leaf}}`, of a whole network or of
        this module.
      state: Haiku state, likewise.
      name: the full name of the module in Haiku, `net` or `outer/~/net`.
      like: variables whose boxes (`nn.Partitioned` and the like) are put back around
        the leaves, for example `jax.eval_shape(module.init, key, x)`. If they have no
        leaves, nothing need be there. Or an `nnx.State`, as `nnx.state(model)` is.

    Returns:
      `{collection: nested dict}`, new plain dicts, ready for `module.apply`. If `like`
      is an `nnx.State`, one like it with these values, for `nnx.update(model, state)`.

    Raises:
      VariablesError: nothing is there under `name`, or one path is a leaf as well as a
        module.

    >>> params = {"net/Dense_0": {"bias": 0.0}, "linear": {"w": 2.0}}
    >>> to_flax(params, {"net/batch_stats": {"mean": 1.0}}, name="net")
    {'params': {'Dense_0': {'bias': 0.0}}, 'batch_stats': {'mean': 1.0}}
    """
    _errors.check_name(name)
    variables = variables_of(params, state, name=name)
    held = [*(params or ()), *(state or ())]
    has_leaves = like is None or any(trees.leaves(states.opened(like)))
    if not variables and held and has_leaves:
        raise _errors.no_such_module(name, held, _nearest(name, held))
    if states.is_state(like):
        filled: dict[str, dict[str, Any]] = states.filled(like, variables)
        return filled
    return variables if like is None else trees.rebox(variables, dict(like))


def variables_of(
    params: Bundles | None, state: Bundles | None, *, name: str
) -> dict[str, dict[str, Any]]:
    """`to_flax` for a module that may have no variables."""
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
    return variables


def _nearest(name: str, module_names: Iterable[str]) -> str | None:
    """The name of a module, or of one above it, that is the most similar."""
    all_names: dict[str, None] = {}
    for module_name in module_names:
        parts = module_name.split("/")
        above = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
        all_names.update({a: None for a in above if not a.endswith("~") and a != name})
    ends = [full for full in all_names if full.endswith(f"/{name}")]
    return next(iter(ends or difflib.get_close_matches(name, all_names, n=1)), None)


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


def are_haikus(value: Any) -> bool:
    """Whether `value` is Haiku's params or state, whose leaves are no boxes.

    >>> are_haikus({"net/a": {"w": 1.0}}), are_haikus({"params": {"a": {"w": 1.0}}})
    (True, False)
    """
    if not are_bundles(value):
        return False
    return not any(trees.is_box(leaf) for b in value.values() for leaf in b.values())


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
