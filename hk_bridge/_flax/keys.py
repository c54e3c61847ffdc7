"""The keys of one call, and how Flax folds them.

Private in Flax: `flax.core.scope.LazyRng`, which a Scope with keys drawn on demand must
hand to lifted transforms.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import hashlib
from typing import Any

from flax import config
from flax import core
from flax.core import scope as core_scope
import flax.linen as nn
import jax
import numpy as np

DEFAULT = "default"  # answers in NNX for streams of any name
Key = jax.Array
LazyRng = core_scope.LazyRng


class Streams:
    """The keys of one call: given as `rngs`, else one of Haiku's a stream, when used.

    Args:
      rngs: `{stream: key}`; None draws every stream from Haiku.
      draw: gives a new Haiku key; None where Haiku has none.
      initializing: `rngs` without `params` draw that stream from Haiku at init.

    Attributes:
      keys: those that are there, by stream.
      asked: the stream of each key that was made of one of these, and what was folded
        into it.
    """

    def __init__(
        self,
        rngs: Mapping[str, Key] | None,
        draw: Callable[[], Key] | None,
        initializing: bool,
    ):
        self.keys: dict[str, Key] = dict(rngs or {})
        self.asked: list[tuple[str, tuple[str | int, ...]]] = []
        self._ahead: dict[str, Key] = {}  # drawn, and not yet asked for
        self._draw = draw
        self._from_haiku = ("params",) if initializing else ()
        self._any = rngs is None

    def only(self, keys: Mapping[str, Key], ahead: Mapping[str, Key]) -> "Streams":
        """Streams that offer the same, but have these keys and cannot draw another.

        Args:
          ahead: keys that are there once they are asked for, as if drawn then."""
        streams = copy.copy(self)
        streams.keys, streams._ahead, streams.asked = dict(keys), dict(ahead), []
        streams._draw = None if self._draw is None else _no_other
        return streams

    def offers(self, stream: str) -> bool:
        """Whether there is, or can be, a key for `stream`."""
        if stream in self.keys:
            return True
        return self._draw is not None and (self._any or stream in self._from_haiku)

    def key(self, stream: str) -> Key:
        """The key of `stream`, drawn now if it was not yet."""
        if stream not in self.keys:
            (self.keys[stream],) = self.ahead([stream])
            del self._ahead[stream]
        return self.keys[stream]

    def has(self, stream: str) -> bool:
        """Whether the key of `stream` is there, so that to take it draws none."""
        return stream in self.keys or stream in self._ahead

    def ahead(self, names: Sequence[str]) -> list[Key]:
        """The keys of these streams, in `keys` not before they are asked for."""
        for stream in names:
            if stream not in self._ahead:
                assert self._draw is not None
                self._ahead[stream] = self._draw()
        return [self._ahead[stream] for stream in names]

    def give_back(self) -> None:
        """Forgets the keys that nobody has asked for yet."""
        self._ahead.clear()

    def fold(self, stream: str, rng: Key, suffix: tuple[str | int, ...]) -> Key:
        """The key that code gets: that of `stream`, with `suffix` folded in."""
        self.asked.append((stream, suffix))
        return folded(rng, suffix)

    def hand_on(self) -> None:
        """Is told that a lifted transform takes keys as they are."""


class FoldedKeys(Streams):
    """Keys that were folded before, by stream and by what was folded into them.

    Args:
      offers: whether there would be a key of a stream.
    """

    def __init__(self, keys: Mapping[Any, Key], offers: Callable[[str], bool]):
        super().__init__({}, None, initializing=False)
        self._folded, self._offers = keys, offers

    def offers(self, stream: str) -> bool:
        return self._offers(stream)

    def has(self, stream: str) -> bool:
        return True

    def key(self, stream: str) -> Any:
        return None

    def fold(self, stream: str, rng: Any, suffix: tuple[str | int, ...]) -> Key:
        self.asked.append((stream, suffix))
        return self._folded[stream, suffix]

    def hand_on(self) -> None:
        raise KeyError("A key was folded before.")


class LinenStreams(Streams):
    """The keys of one call of a linen module.

    Args:
      module: for the texts of Flax's errors.
      rngs: as `module.apply` takes it.
    """

    def __init__(
        self,
        module: nn.Module,
        rngs: Any,
        draw: Callable[[], Key] | None,
        initializing: bool,
    ):
        if rngs is not None:
            rngs = _checked_rngs(module, rngs, initializing)
        super().__init__(rngs, draw, initializing)


def _no_other() -> Key:
    raise AssertionError("A shared trace asks for the streams of the first run.")


def _checked_rngs(
    module: nn.Module, rngs: Any, initializing: bool
) -> Mapping[str, Key]:
    """`rngs` as a dict, or Flax's own error for them."""

    def nothing(_: Any) -> None:
        """Run by Flax in place of the module, so that it only checks."""

    # Not by `module.init`: a class may have one of its own.
    if isinstance(rngs, dict) and initializing:
        core.init(nothing)(rngs)
    elif isinstance(rngs, dict):
        core.apply(nothing)({}, rngs=rngs)
    elif initializing:
        nn.Module.init_with_output(module, rngs, method=nothing)
    else:
        nn.Module.apply(module, {}, rngs=rngs, method=nothing)
    return rngs if isinstance(rngs, dict) else {"params": rngs}


def folded(key: Key, suffix: Iterable[str | int]) -> Key:
    """`LazyRng(key, suffix).as_jax_rng()`, less the most of its time.

    That goes into `jnp.uint32`, where a NumPy number does as well.
    """
    digest = hashlib.sha1()
    for part in suffix:
        if config.flax_fix_rng_separator:
            digest.update(b"\00")
        size = 0 if isinstance(part, str) else (part.bit_length() + 7) // 8
        digest.update(part.encode() if isinstance(part, str) else part.to_bytes(size))
    return jax.random.fold_in(key, np.uint32(int.from_bytes(digest.digest()[:4])))
