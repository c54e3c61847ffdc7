"""`share_traces`: equal modules in one transform are traced once."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import threading
from typing import Any
from typing import NamedTuple

import jax

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout


class _Table(threading.local):
    """What is shared now in this thread, by all that determines a trace."""

    entries: "dict[Any, _Entry | None] | None" = None


_table = _Table()

# Inlines as it traces. From JAX 0.12 on, True inlines in the lowering.
_INLINE: Any = getattr(getattr(jax, "Inline", None), "JAX_EARLY", True)


@contextlib.contextmanager
def share_traces() -> Iterator[None]:
    """Has bridged modules that are equal share one trace, which takes less time.

    Inside, a bridged module that is applied like one before (equal configuration,
    method, static arguments, shapes and dtypes) is not run again: the equations of
    the other are put in its place, with its own parameters, state and keys. The program
    and every value stay the same. Use it inside a transformed function. It ends with
    the block, and is of this thread alone.

    The first of several equal modules is run as ever, the second to be traced, the rest
    not at all, so the code of a module must not do anything but compute. Sharing steps
    aside by itself: at init and outside of `jax.jit`; for a configuration that holds
    arrays, or anything not known to be a value; for code whose global names stand for
    lists, dicts or objects, which may change between two calls; for outputs that hold
    arrays where JAX does not see them; for code that itself asks Haiku for anything;
    with `mutable=` or `capture_intermediates=`; and while creators of Haiku, or
    interceptors of Haiku or Flax, are in force.

    Returns:
      A context manager.

    >>> import flax.linen as nn, haiku as hk, hk_bridge, jax, jax.numpy as jnp
    >>> def forward(x):
    ...     with hk_bridge.share_traces():
    ...         for _ in range(24):
    ...             x = hk_bridge.nn.LayerNorm()(x)
    ...     return x
    >>> f = hk.transform(forward)
    >>> x = jnp.ones([2, 4])
    >>> jax.jit(f.apply)(f.init(jax.random.key(0), x), None, x).shape
    (2, 4)
    """
    before, _table.entries = _table.entries, {}
    try:
        yield
    finally:
        _table.entries = before


class _Place(NamedTuple):
    """Stands for an array, by its position among them."""

    position: int


@dataclasses.dataclass(eq=False)  # JAX asks whether forms are equal
class _Form:
    """A tree without its arrays: the leaves, a `_Place` for each array, and the tree.

    An array that is there twice has one place: code may ask whether `q is kv`."""

    leaves: list[Any]
    treedef: Any

    @property
    def static(self) -> Any:
        """All that it is, for a key."""
        leaves = [(x.position,) if type(x) is _Place else [x] for x in self.leaves]
        return leaves, self.treedef

    def join(self, arrays: Sequence[Any]) -> Any:
        """The tree with these arrays."""
        leaves = [arrays[x.position] if type(x) is _Place else x for x in self.leaves]
        return jax.tree.unflatten(self.treedef, leaves)


def _split(tree: Any) -> tuple[list[Any], _Form]:
    """The arrays of `tree`, and its form."""
    leaves, treedef = jax.tree.flatten(tree)
    arrays = {id(leaf): leaf for leaf in leaves if isinstance(leaf, jax.Array)}
    places = {key: _Place(index) for index, key in enumerate(arrays)}
    rest = [places.get(id(leaf), leaf) for leaf in leaves]
    return list(arrays.values()), _Form(rest, treedef)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass
class _Results:
    """What a trace gives: JAX remembers the form with the trace."""

    arrays: Sequence[Any]
    form: _Form

    def tree_flatten(self) -> tuple[Sequence[Any], _Form]:
        return self.arrays, self.form

    @classmethod
    def tree_unflatten(cls, form: _Form, arrays: Sequence[Any]) -> "_Results":
        return cls(arrays, form)


class _Now(NamedTuple):
    """One of the equal calls, whose code runs if JAX wants to trace (again)."""

    plan: _flax.Plan
    form: _Form
    side: Any


@dataclasses.dataclass
class _Entry:
    """One trace: the streams that it draws, and the function that has it, once made.

    What `now` has may differ from what the first of the equal calls had by now: an
    object that changed is equal to what others were before."""

    streams: tuple[str, ...]
    function: Callable[..., _Results] | None = None
    now: _Now | None = None


def run(
    plan: _flax.Plan,
    variables: dict[str, Any],
    side: Any,
    args: Any,
    kwargs: Mapping[str, Any],
) -> _flax.Outcome:
    """What `_flax.run` does, by a trace that is there, if sharing is on."""
    entries = _table.entries

    def as_ever() -> _flax.Outcome:
        return _flax.run(plan, variables, side, args, kwargs, side.begin)

    if entries is None or not side.may_share() or _flax.is_intercepted():
        return as_ever()
    side.read_rest(variables)
    given = dict(side.streams.keys)
    arrays, form = _split((variables, args, kwargs, given))
    if not _are_staged(arrays):
        return as_ever()  # some are constants, or nothing is being staged
    streams = (tuple(given), side.streams.offers("?"))
    avals = tuple(map(jax.typeof, arrays))
    context = _flax.context()
    parts = (*_flax.parts(plan), form.static, avals, streams, context)
    key = _flax.key_of(parts)
    if key is None:
        return as_ever()
    if key not in entries:
        outcome = as_ever()
        drawn = tuple(stream for stream in side.streams.keys if stream not in given)
        entries[key] = _Entry(drawn)
        return outcome
    entry = entries[key]
    if entry is None:
        return as_ever()
    keys = [side.streams.key(stream) for stream in entry.streams]
    if not (arrays or keys) or not _are_staged(keys):
        return as_ever()
    if entry.function is None:
        entry.function = _shared(entry)
    entry.now = _Now(plan, form, side)
    try:
        results = entry.function(arrays, keys)
    except Exception:
        entries[key] = None  # as below, or whatever has the module fail by itself, too
        return as_ever()
    finally:
        entry.now = None
    output, changed = results.form.join(results.arrays)
    record = _flax.Record(wrote=set(changed))
    return _flax.Outcome(output, _layout.replace(variables, changed), record)


def _are_staged(arrays: Sequence[Any]) -> bool:
    """Whether all `arrays` are inputs of a program that is being traced."""
    return all(map(_flax.is_staged, arrays))


def _shared(entry: _Entry) -> Callable[..., _Results]:
    """The jitted function that runs the module, inlined wherever it is called."""

    def pure(arrays: Sequence[Any], keys: Sequence[Any]) -> _Results:
        assert entry.now is not None
        plan, form, side = entry.now
        variables, args, kwargs, given = form.join(arrays)
        given = {**given, **dict(zip(entry.streams, keys, strict=True))}
        outcome = _flax.run(plan, variables, side.with_keys(given), args, kwargs)
        wrote = outcome.record.wrote | outcome.record.made
        changed = {w: v for w, v in _layout.leaves(outcome.variables) if w in wrote}
        results = _Results(*_split((outcome.output, changed)))
        if _flax.key_of(results.form.static) is None:
            raise TypeError("A leaf that is no array may hold a tracer of this trace.")
        return results

    return jax.jit(_haiku.apart(pure), inline=_INLINE)
