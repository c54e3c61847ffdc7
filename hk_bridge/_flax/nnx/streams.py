"""The keys of an NNX module: its `RngStream`s, fed from Haiku or from `rngs=`.

At a call the streams of a module get what `nnx.reseed(module, policy="match_shape",
dropout=key)` gives them: the n-th stream of a name, in the order of `nnx.iter_graph`,
has the n-th key of `nnx.Rngs(dropout=key)`, split to the shape of its own, and counts
from zero. A key is drawn from Haiku when a stream of its name is first read.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
from typing import Any
from typing import ParamSpec

from flax import nnx
import jax
import jax.numpy as jnp

from hk_bridge._flax.keys import DEFAULT
from hk_bridge._flax.keys import Key
from hk_bridge._flax.keys import Streams
from hk_bridge._flax.nnx import lazy
from hk_bridge._flax.nnx.passed import is_passed

# The streams that a class is built with: the last answers for all others.
AT_INIT = ("params", "dropout", DEFAULT)

_Args = ParamSpec("_Args")


class NnxStreams(Streams):
    """The keys of one call of an NNX module. What lacks a key has that of `default`.

    Args:
      rngs: a dict of keys or seeds, one of them for `default`, or an `nnx.Rngs`, of
        which one key a stream is drawn; None draws every stream from Haiku.
    """

    def __init__(self, rngs: Any, draw: Callable[[], Key] | None, initializing: bool):
        super().__init__(_keys_of(rngs), draw, initializing)

    def offers(self, stream: str) -> bool:
        return super().offers(stream) or DEFAULT in self.keys

    def answering(self, stream: str) -> str:
        """The name of the stream that answers for `stream`."""
        return stream if super().offers(stream) else DEFAULT

    def has(self, stream: str) -> bool:
        return super().has(self.answering(stream))

    def key(self, stream: str) -> Key:
        return super().key(self.answering(stream))


def _keys_of(rngs: Any) -> Mapping[str, Key] | None:
    if rngs is None:
        return None
    if isinstance(rngs, nnx.Rngs):
        return {name: stream() for name, stream in rngs.items()}
    made = nnx.Rngs(rngs)  # refuses what is no key
    return {name: stream.key.get_value() for name, stream in made.items()}


def _kept(make: Callable[_Args, jax.Array]) -> Callable[_Args, jax.Array]:
    """`make`, with what it made before, but for arrays of a mesh: another has others.

    An array that is made while a mesh is set is of that mesh, and JAX mixes no two."""
    kept: Any = functools.cache(make)

    @functools.wraps(make)
    def made(*args: _Args.args, **kwargs: _Args.kwargs) -> jax.Array:
        none_set = jax.sharding.get_abstract_mesh().empty
        array: jax.Array = (kept if none_set else make)(*args, **kwargs)
        return array

    return made


@_kept
def stand_in(shape: tuple[int, ...] = ()) -> Key:
    """A key for who takes one and does not use it."""
    with jax.ensure_compile_time_eval():
        return jnp.broadcast_to(jax.random.key(0), shape)


@_kept
def unused_key(shape: tuple[int, ...]) -> Key:
    """A key for who asks for one and does nothing with it."""
    with jax.ensure_compile_time_eval():
        return jnp.broadcast_to(jax.random.key(1), shape)


@_kept
def zero() -> jax.Array:
    """The count of a stream that begins."""
    with jax.ensure_compile_time_eval():
        return jnp.zeros((), jnp.uint32)


def rngs_for(streams: NnxStreams, given: bool) -> nnx.Rngs:
    """What a class is built with: `nnx.Rngs` of these keys, drawn when they are used.

    Args:
      given: whether the caller gave `rngs`, which then has the streams that there are.
    """
    names = AT_INIT if not given else (*streams.keys, "params")
    made = of_stand_ins(names)
    for name, stream in made.items():
        draw = functools.partial(_drawn, streams, name)
        # Not by its name: to set it, older versions look at the value.
        vars(stream)["key"] = _lazy(lazy.Pending(draw, name, stand_in()), stream.key)
    return made


def of_stand_ins(names: Iterable[str]) -> nnx.Rngs:
    """An `nnx.Rngs` that has these streams, for who does not use them."""
    made = nnx.Rngs(**dict.fromkeys(names, stand_in()))
    for _, stream in made.items():
        stream.count = count_like(stream.count)
    return made


def count_like(count: Any) -> lazy.Count:
    """The count of a stream that begins."""
    shape = tuple(count.get_raw_value().shape)
    start = jnp.zeros(shape, jnp.uint32) if shape else zero()  # as NNX makes it
    made: Any = lazy.Count.from_metadata(start, count.get_metadata())
    counts: lazy.Count = made
    return counts


def _lazy(pending: Any, like: Any) -> Any:
    return lazy.LazyKey.from_metadata(pending, like.get_metadata())


def _drawn(streams: NnxStreams, name: str) -> Key | None:
    return _typed(streams.key(name)) if streams.offers(name) else None


def _typed(key: Key) -> Key:
    """The key as NNX keeps it: of a key type, and not of numbers."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(key)


class Fed:
    """The streams of a module in one run, each as a key and a count.

    Args:
      streams: the keys of the call.
      tags: the name of each stream of the module, in the order of its graph.
      unused: the streams of which the key is of no use to who asks for it.
    """

    def __init__(
        self, streams: NnxStreams, tags: Sequence[str], unused: Collection[int] = ()
    ):
        self._streams = streams
        self._unused = unused
        self._ended = False
        self._typed: dict[str, Key] = {}
        self._counts: dict[str, list[jax.Array]] = {}
        self._names = [streams.answering(tag) for tag in tags]
        # Those of the name itself come first, as where there are no others.
        own = [tag == name for tag, name in zip(tags, self._names, strict=True)]
        order = sorted(range(len(tags)), key=lambda i: not own[i])
        seen: collections.Counter[str] = collections.Counter()
        self._numbers = [0] * len(tags)
        for i in order:
            self._numbers[i] = seen[self._names[i]]
            seen[self._names[i]] += 1
        self._lacking: set[int] = set()  # streams of which a stand-in was handed out

    def key(self, index: int, like: Any) -> Any:
        """The key of a stream, a Variable, where the module has `like`."""
        own = like.get_raw_value()
        shape = tuple(own.shape)
        is_abstract = isinstance(own, jax.ShapeDtypeStruct)
        instead = stand_in(shape) if is_abstract else own
        draw = functools.partial(self._draw, index, shape)
        return _lazy(lazy.Pending(draw, tag_of(like), instead), like)

    def _draw(self, index: int, shape: tuple[int, ...]) -> Key | None:
        if self._ended:
            return None
        name = self._names[index]
        if index in self._unused:
            return unused_key(shape)
        if not self._streams.offers(name):
            self._lacking.add(index)
            return None
        if name not in self._typed:
            self._typed[name] = _typed(self._streams.key(name))
        counts = self._counts.setdefault(name, [zero()])
        while len(counts) <= self._numbers[index]:
            counts.append(counts[-1] + 1)  # as a stream of NNX counts
        key = jax.random.fold_in(self._typed[name], counts[self._numbers[index]])
        return jax.random.split(key, shape) if shape else key

    def end(self) -> None:
        """From now on no key is drawn."""
        self._ended = True

    def check(self, index: int, count: Any, before: Any) -> None:
        """Refuses that a stream without a key was used inside a transform of NNX.

        Args:
          count: its count after the run, a Variable.
          before: what that held before.
        """
        used = is_passed(count.get_raw_value(), before) is False
        if index in self._lacking and used:
            raise lazy.no_key(tag_of(count))


def tag_of(variable: Any) -> str:
    """The name of the stream to which the Variable of a key or a count belongs."""
    tag: str = variable.get_metadata().get("tag", DEFAULT)
    return tag
