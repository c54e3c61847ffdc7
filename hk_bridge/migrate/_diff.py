"""`diff`: what a checkpoint lacks, has too much or has wrong, before anything runs."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import difflib
import itertools
import math
import operator
from typing import Any

import jax

from hk_bridge import _abstract
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._layout import Where
from hk_bridge.migrate._entries import Diff as Diff
from hk_bridge.migrate._entries import Entry as Entry

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

    Args:
      variables: `{collection: nested dict}`, as `hk_bridge.migrate.load` returns it;
        a `FrozenDict`, boxed or abstract (`jax.ShapeDtypeStruct`) will do.
      module: a linen module instance.
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
      ModuleTypeError: `module` is no linen module instance.
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
    _layout.bundles(variables, name=name)  # refuses a wrong form
    specs, transient = abstract_init(module, args, kwargs, method, rngs)
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

    remedies = {at: _remedy(needed[at], held[at]) for at in wrong}
    return Diff(
        name=name,
        count=len(needed),
        missing=tuple(entries(lacks, _nearest(lacks, extra))),
        unexpected=tuple(entries(extra, _nearest(extra, lacks))),
        mismatched=tuple(entries([at for at in needed if at in wrong], remedies)),
    )


def haiku_name(module: Any) -> str:
    """The name that `FlaxModule` gives itself by default."""
    own = None if _flax.is_nnx(module) else module.name
    return own or _haiku.camel_to_snake(_flax.title(module))


def abstract_init(
    module: Any, args: Any, kwargs: Mapping[str, Any], method: Any, rngs: Any
) -> tuple[Leaves, frozenset[str]]:
    """The shapes of what `module.init` makes and keeps, and what it sows into.

    Arrays among the inputs may be abstract; all else is handed on as it is."""
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


def _remedy(expected: str, given: str) -> str | None:
    """How to make an array fit, where a line does it."""
    (to, new), (dtype, old) = _parsed(expected), _parsed(given)
    steps = None if new is None or old is None else _steps(old, new)
    if steps is None:
        return None
    return "leaf" + steps + (f".astype({to!r})" if to != dtype else "")


def _steps(old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    """The one likely way from a shape to another; None if there is none, or are two."""
    if old == new:
        return ""
    turned = (*range(2, len(old)), 1, 0)  # [O, I, *spatial] to [*spatial, I, O]
    if 2 <= len(old) <= 5 and new == tuple(old[axis] for axis in turned):
        return ".T" if len(old) == 2 else f".transpose({turned})"
    straight = _in_order(old, new)
    vector = sum(size != 1 for size in old) <= 1  # the same either way
    transposed = not vector and _in_order(old[::-1], new)
    if straight == transposed or (transposed and len(old) > 2):
        return None
    return ".T" * transposed + f".reshape({new})"


def _in_order(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether axes are merely split, merged or of size 1 between two shapes.

    >>> _in_order((12, 24), (12, 4, 6)), _in_order((24, 12), (12, 4, 6))
    (True, False)
    """
    ends, others = (
        {*itertools.accumulate((size for size in shape if size != 1), operator.mul)}
        for shape in (old, new)
    )  # an axis is split where only `others` has an end, merged where only `ends` has
    sides = [(end in ends) - (end in others) for end in sorted(ends | others)]
    adjacent = itertools.pairwise(sides)
    return math.prod(old) == math.prod(new) and all(a * b >= 0 for a, b in adjacent)


def _parsed(text: str) -> tuple[str, tuple[int, ...] | None]:
    dtype, bracket, sizes = text.removesuffix("]").partition("[")
    if not bracket or not text.endswith("]") or not sizes.replace(",", "0").isdigit():
        return dtype, () if text.endswith("[]") else None
    return dtype, tuple(map(int, sizes.split(",")))


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
