"""`diff`: what a checkpoint lacks, has too much or has wrong, before anything runs."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import difflib
from typing import Any

import jax

from hk_bridge import _abstract
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._layout import Where
from hk_bridge.migrate._entries import Diff as Diff
from hk_bridge.migrate._entries import Entry as Entry
from hk_bridge.migrate._match import propose
from hk_bridge.migrate._turns import remedy

Leaves = dict[Where, Any]


def diff(
    variables: _layout.Variables,
    module: Any,
    *args: Any,
    name: str | None = None,
    method: Callable[..., Any] | str | None = None,
    rngs: Any = None,
    **kwargs: Any,
) -> Diff:
    """How `variables` differ from what `module.init` would make.

    Nothing is computed and no weights are made: `init` is evaluated for shapes alone.
    Collections into which the module sows live for one call, so they are neither
    missing nor unexpected; nor is `intermediates`. An empty dict is a leaf where the
    module makes one, and else is nothing.

    How to make a leaf fit is guessed, since a shape is all that is known: two axes that
    are swapped want `.T`, `[O, I, *spatial]` for `[*spatial, I, O]` is the kernel of a
    PyTorch convolution, and axes that are split, merged or of size 1 stay in order.
    Where that says nothing, or the transposed leaf would do as well, nothing is
    suggested. A square kernel fits, be it transposed or not: no shape tells.

    A checkpoint with flat names of others, such as PyTorch's, gets a proposal of the
    whole mapping: see `Diff.table`.

    Args:
      variables: `{collection: nested dict}`, as `hk_bridge.migrate.load` returns it;
        a `FrozenDict`, boxed or abstract (`jax.ShapeDtypeStruct`) will do.
      module: a linen module instance; or one of NNX, which needs no inputs.
      *args: inputs of the module; arrays may be `jax.ShapeDtypeStruct`s.
      name: the module's full Haiku name, in which the entries spell Haiku's names; by
        default as `FlaxModule` names itself.
      method: what to run, as in `module.init`.
      rngs: keys, as in `module.init`.
      **kwargs: keyword inputs of the module.

    Returns:
      A `Diff`: `ok`, and tuples `missing`, `unexpected` and `mismatched`. Its `repr` is
      a table, in a notebook in HTML.

    Raises:
      VariablesError: `variables` is not a dict of dicts, or has a name on top that is
        no collection: neither one of Flax's own nor one that the module makes.
      ModuleTypeError: `module` is no module instance.
      Whatever Flax raises if the inputs do not suit the module.

    >>> import flax.linen as nn, numpy as np
    >>> x = jax.ShapeDtypeStruct((2, 4), np.float32)
    >>> kernel, bias = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
    >>> found = diff({"params": {"kernel": kernel, "b": bias}}, nn.Dense(3), x)
    >>> found.ok, found.missing[0].suggestion
    (False, 'params/b')
    >>> found.mismatched[0].expected, found.mismatched[0].suggestion
    ('float32[4,3]', 'leaf.T')
    """
    module, _ = _flax.unbound(module)
    name = haiku_name(module) if name is None else name
    flat = _is_flat(variables)
    if not flat:
        _layout.bundles(variables, name=name)  # refuses a wrong form
    specs, transient = abstract_init(module, args, kwargs, method, rngs)
    own = {where.path[0] for where in specs if len(where.path) == 1}
    if flat and not own.issuperset(variables):  # else it is a tree without params
        return _proposed(name, variables, specs)
    made = {where.collection for where in specs}
    _layout.check_collections(variables, _layout.FLAXS_OWN | transient | made)
    needed = {at: _abstract.describe(leaf) for at, leaf in specs.items()}
    skip = transient | {"intermediates"}
    held = {
        at: _abstract.describe(leaf)
        for at, leaf in _leaves(variables).items()
        if at in needed or not (at[0] in skip or _layout.is_level(leaf))
    }
    lacks = {at: text for at, text in needed.items() if at not in held}
    extra = {at: text for at, text in held.items() if at not in needed}
    wrong = {at for at, text in needed.items() if at in held and held[at] != text}

    def entries(
        wanted: Iterable[Where], hints: Mapping[Where, str | None]
    ) -> Iterator[Entry]:
        for at in wanted:
            address = _layout.address(name, at)
            yield Entry(*at, *address, needed.get(at), held.get(at), hints.get(at))

    remedies = {at: remedy(needed[at], held[at]) for at in wrong}
    return Diff(
        name=name,
        count=len(needed),
        missing=tuple(entries(lacks, _nearest(lacks, extra))),
        unexpected=tuple(entries(extra, _nearest(extra, lacks))),
        mismatched=tuple(entries([at for at in needed if at in wrong], remedies)),
    )


def _is_flat(variables: Any) -> bool:
    """Whether there are leaves on top alone: arrays by the flat names of others."""
    if not _layout.are_variables(variables) or not variables:
        return False
    if _layout.FLAXS_OWN.intersection(variables):
        return False
    return all(hasattr(leaf, "shape") for leaf in variables.values())


def _proposed(name: str, flat: Mapping[str, Any], specs: Leaves) -> Diff:
    """What is proposed for flat names, and what is without a proposal."""
    shapes = {at: getattr(leaf, "shape", None) for at, leaf in specs.items()}
    known = {at: tuple(shape) for at, shape in shapes.items() if shape is not None}
    table = propose(flat, known)
    placed = {row.flax for row in table.rows}
    lacks = [at for at in specs if _layout.spelled(at) not in placed]
    missing = (
        Entry(*at, *_layout.address(name, at), _abstract.describe(specs[at]), None)
        for at in lacks
    )
    return Diff(name, len(specs), tuple(missing), (), (), table)


def haiku_name(module: Any) -> str:
    """The name that `FlaxModule` gives itself by default."""
    own = None if _flax.is_nnx(module) else module.name
    return own or _haiku.camel_to_snake(_flax.title(module))


def abstract_init(
    module: Any, args: Any, kwargs: Mapping[str, Any], method: Any, rngs: Any
) -> tuple[Leaves, frozenset[str]]:
    """The shapes of what `module.init` makes and keeps, and what it sows into.

    Arrays among the inputs may be abstract; all else is handed on as it is."""
    if _flax.is_nnx(module):  # which has made them
        return _leaves(_flax.nnx_specs(module)), frozenset()
    function = _flax.resolve(module, method)

    def init(rngs: Any, args: Any, kwargs: Any) -> Any:
        rngs = jax.random.key(0) if rngs is None else rngs
        variables, found = _flax.init(module, function, rngs, args, kwargs)
        sown.update(found)
        return variables

    sown: set[str] = set()
    variables = _abstract.evaluate(init, rngs, args, dict(kwargs))
    transient = frozenset(sown - {_layout.PARAMS})
    kept = {c: tree for c, tree in variables.items() if c not in transient}
    return _leaves(kept), transient


def _leaves(variables: _layout.Variables) -> Leaves:
    """Every leaf, boxes open, and every dict in a collection that is empty."""
    leaves: Leaves = dict(_layout.leaves(variables))
    for c, tree in variables.items():
        bare = _layout.empty_paths(_layout.unbox(tree), ())
        leaves.update({Where(c, path): {} for path in bare if path})
    return leaves


def _nearest(
    these: Mapping[Where, str], those: Mapping[Where, str]
) -> dict[Where, str]:
    """For each of `these` the most similar name in `those`, if one is similar.

    Only leaves of the same shape and dtype are compared, or else those of the same
    name: it is quick, and what else looks alike is seldom meant."""
    by_text: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for at, text in those.items():
        by_text.setdefault(text, []).append(_layout.spelled(at))
        by_name.setdefault(at[1][-1], []).append(_layout.spelled(at))
    found = {}
    for at, text in these.items():
        for names in (by_text.get(text, []), by_name.get(at[1][-1], [])):
            close = difflib.get_close_matches(_layout.spelled(at), names, n=1)
            if close:
                found[at] = close[0]
                break
    return found
