"""`share_traces`: equal modules in one transform are traced once."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import threading
from typing import Any

import jax
from jax.interpreters import partial_eval

from hk_bridge import _flax
from hk_bridge import _layout

Leaf = tuple[str, tuple[str, ...]]  # the collection and path of a variable


class _Table(threading.local):
    """What is shared now in this thread, by all that determines a trace."""

    entries: "dict[Any, _Entry] | None" = None


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
    aside by itself: at init and outside of `jax.jit`; for a configuration that has no
    hash or holds arrays; with `mutable=` or `capture_intermediates=`; and while
    creators of Haiku, or interceptors of Haiku or Flax, are in force.

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


@dataclasses.dataclass
class _Entry:
    """One trace: the streams that it draws, and the function that has it, once made."""

    streams: tuple[str, ...]
    function: Callable[..., Any] | None = None
    results: "_Split | None" = None
    changed: tuple[Leaf, ...] = ()


@dataclasses.dataclass
class _Split:
    """A tree as its arrays and all the rest."""

    arrays: list[Any]
    rest: list[Any]  # with _ARRAY in the place of an array
    treedef: Any

    @classmethod
    def of(cls, tree: Any) -> "_Split":
        leaves, treedef = jax.tree.flatten(tree)
        arrays = [x for x in leaves if isinstance(x, jax.Array)]
        rest = [_ARRAY if isinstance(x, jax.Array) else x for x in leaves]
        return cls(arrays, rest, treedef)

    def join(self, arrays: Any) -> Any:
        """The tree with other arrays."""
        remaining = iter(arrays)
        leaves = [next(remaining) if x is _ARRAY else x for x in self.rest]
        return jax.tree.unflatten(self.treedef, leaves)


_ARRAY: Any = object()


def run(
    module: Any,
    function: Callable[..., Any],
    variables: dict[str, Any],
    call: _flax.Call,
    args: Any,
    kwargs: Mapping[str, Any],
) -> _flax.Outcome:
    """What `_flax.run` does after init, by a trace that is there, if sharing is on."""
    entries = _table.entries

    def as_ever() -> _flax.Outcome:
        return _flax.run(module, function, variables, call, False, args, kwargs)

    if entries is None or _flax.is_intercepted():
        return as_ever()
    given = dict(call.streams.keys)
    inputs = _Split.of((variables, args, kwargs, given))
    if not all(isinstance(x, partial_eval.DynamicJaxprTracer) for x in inputs.arrays):
        return as_ever()  # some are constants, or nothing is being staged
    streams = (tuple(given), call.streams.offers("?"), call.mutable)
    avals = tuple(map(jax.typeof, inputs.arrays))
    context = _flax.context()
    static = (module, function, inputs.rest, inputs.treedef, avals, streams, context)
    key = _flax.frozen_key(static)
    if key is None:
        return as_ever()
    entry = entries.get(key)
    if entry is None:
        outcome = as_ever()
        drawn = tuple(stream for stream in call.streams.keys if stream not in given)
        entries[key] = _Entry(drawn)
        return outcome
    keys = [call.streams.key(stream) for stream in entry.streams]
    if entry.function is None:
        entry.function = _shared(entry, inputs, module, function, call)
    arrays = entry.function(inputs.arrays, keys)
    assert entry.results is not None
    output, changed = entry.results.join(arrays)
    new = dict(zip(entry.changed, changed, strict=True))
    return _flax.Outcome(output, _layout.replace(variables, new), frozenset(), None)


def _shared(
    entry: _Entry, inputs: _Split, module: Any, function: Callable[..., Any], call: Any
) -> Callable[..., Any]:
    """The jitted function that runs `module`, inlined wherever it is called."""
    inputs = dataclasses.replace(inputs, arrays=[])  # tracers are not to be kept

    def pure(arrays: list[Any], keys: list[Any]) -> list[Any]:
        variables, args, kwargs, given = inputs.join(arrays)
        given = {**given, **dict(zip(entry.streams, keys, strict=True))}
        inner = call.with_keys(given)
        before = {(c, path): leaf for c, path, leaf in _layout.leaves(variables)}
        outcome = _flax.run(module, function, variables, inner, False, args, kwargs)
        after = [
            ((c, path), leaf)
            for c, path, leaf in _layout.leaves(outcome.variables)
            if before.get((c, path), _ARRAY) is not leaf
        ]
        entry.changed = tuple(leaf for leaf, _ in after)
        entry.results = _Split.of((outcome.output, [value for _, value in after]))
        arrays, entry.results.arrays = entry.results.arrays, []
        return arrays

    return jax.jit(pure, inline=_INLINE)
