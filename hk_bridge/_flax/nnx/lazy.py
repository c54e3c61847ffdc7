"""Keys of NNX streams that are drawn when they are read, and their counts.

Private in NNX (since flax 0.12.2): `Variable._raw_value`, which transforms read.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import threading
from typing import Any
from typing import NamedTuple

from flax import errors
from flax import nnx

from hk_bridge._flax.keys import Key


class Pending(NamedTuple):
    """A key that is drawn when it is wanted.

    Attributes:
      draw: gives the key, or None where there is none.
      stream: the name of the stream.
      instead: who takes a key that there is not, and does not use it, gets this.
    """

    draw: Callable[[], Key | None]
    stream: str
    instead: Key


class _Unread(threading.local):
    """Whether keys are not drawn now in this thread, though they are read."""

    now = False


_unread = _Unread()


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """For who looks at a module, and at the values of all its Variables."""
    before, _unread.now = _unread.now, True
    try:
        yield
    finally:
        _unread.now = before


class LazyKey(nnx.RngKey):
    """The key of a stream, drawn when it is read.

    A transform of NNX takes the keys of all streams of a module, used or not. Where
    there is none it gets a stand-in, and `Fed.check` finds out whether it was used."""

    __slots__ = ("_held",)
    _held: Any

    @property
    def _raw_value(self) -> Any:
        if type(self._held) is Pending:
            key = None if _unread.now else self._held.draw()
            if key is None:
                return self._held.instead
            object.__setattr__(self, "_held", key)
        return self._held

    @_raw_value.setter
    def _raw_value(self, value: Any) -> None:
        object.__setattr__(self, "_held", value)

    def get_value(self, **kwargs: Any) -> Any:
        held = self._held
        if type(held) is Pending and self._raw_value is held.instead:
            raise no_key(held.stream)
        return super().get_value(**kwargs)


def pending(variable: Any) -> str | None:
    """The stream of a key that was not drawn yet; None of all else."""
    held = getattr(variable, "_held", None)
    return held.stream if type(held) is Pending else None


def refusing(stream: str, instead: Key) -> Pending:
    """What a key holds of which it is known that nobody will read it."""

    def refuse() -> None:
        raise TypeError("It draws other keys than an equal call.")

    return Pending(refuse, stream, instead)


class Count(nnx.RngCount):
    """The count of a stream. It is set as a whole, without a look at what is there.

    NNX asks for the sharding of both, and of a tracer that makes JAX describe the whole
    program so far, for an error that nobody sees."""

    def set_value(self, value: Any, **kwargs: Any) -> None:
        if kwargs.get("index") is ...:
            kwargs = {}
        super().set_value(value, **kwargs)


def no_key(stream: str) -> errors.InvalidRngError:
    """Flax's own error, with its own text."""
    error: Any = errors.InvalidRngError
    made: errors.InvalidRngError = error(f'the stream "{stream}" has no key')
    return made
