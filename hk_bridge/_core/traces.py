"""What it is to share a trace: what goes in, the key, the run, and what comes out.

A call of a bridged module, of a Flax submodule or of a Haiku module are each a `Call`;
here nothing is known of either library.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any
from typing import Protocol

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge._core import forms
from hk_bridge._core.report import Report

# Inlines as it traces. From JAX 0.12 on, True inlines in the lowering.
_INLINE: Any = getattr(getattr(jax, "Inline", None), "JAX_EARLY", True)


_eager = False


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Each call is asked for its key, worth a trace or not: few calls do for tests."""
    global _eager
    before, _eager = _eager, True
    try:
        yield
    finally:
        _eager = before


class Call(Protocol):
    """One call, of which an equal one may have done all that it will do.

    Attributes:
      watched: names that code has no key with, if it mentions one.
      patience: how many calls of its kind are not even asked for their keys, after one
        that ran as ever and called no other.
    """

    watched: frozenset[str]
    patience: int

    @property
    def kind(self) -> Any:
        """Its class and method. It is told at once, and differs for unequal calls of
        most kinds."""

    @property
    def name(self) -> str:
        """Of the module, for the report."""

    @property
    def title(self) -> str:
        """Of its class."""

    @property
    def others(self) -> bool:
        """Whether others that are worth a trace are likely to come, by their names.

        If not, the first of its kind is not asked for its key."""

    def refusal(self) -> str | None:
        """Why this call is not shared, as far as that can be told at once."""

    def arguments(self) -> Any:
        """What the caller gives, which code may write into."""

    def inputs(self) -> Any:
        """All that goes in, as a tree."""

    def held(self) -> Any:
        """What the module is and holds now. It raises if that cannot be told."""

    def parts(self) -> Any:
        """What else determines the trace."""

    def as_ever(self) -> Any:
        """The result, without sharing; what keys it draws is noted."""

    def drawn(self) -> Any:
        """Which keys it drew, said so that an equal call draws its own by it.

        None if another call cannot."""

    def draw(self, drawn: Any) -> "list[Any] | None":
        """The keys of this call, in place of those `drawn` by another.

        None if Haiku would have to draw one, and could not take it back."""

    def undraw(self) -> None:
        """Takes back what `draw` drew, since the code runs after all."""

    def apart(self, inputs: Any, drawn: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
        """Runs the code on `inputs`: what comes out, as a tree that begins with the
        output, and what else there is to say of it, which holds no arrays."""

    def result(self, output: Any, said: Any) -> Any:
        """The result, of what comes out of `apart`."""


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass
class _Results:
    """What a trace gives: JAX remembers the form with the trace."""

    arrays: Sequence[Any]
    form: forms.Form

    def tree_flatten(self) -> tuple[Sequence[Any], forms.Form]:
        return self.arrays, self.form

    @classmethod
    def tree_unflatten(cls, form: forms.Form, arrays: Sequence[Any]) -> "_Results":
        return cls(arrays, form)


@dataclasses.dataclass
class _Entry:
    """One trace: which keys it draws, and the function that has it, once made.

    What `now` has may differ from what the first of the equal calls had by now: an
    object that changed is equal to what others were before.

    Attributes:
      inside: the trace in which the first of equal calls ran as ever.
      refused: why no other call can have this trace.
      now: the equal call whose code runs if JAX wants to trace (again), and its form.
    """

    drawn: Any
    inside: int
    refused: str | None = None
    function: Callable[..., _Results] | None = None
    now: "tuple[Call, forms.Form] | None" = None


class Traces:
    """What is shared now, by all that determines a trace."""

    def __init__(self, report: Report):
        self._report = report
        self._entries: dict[Any, _Entry] = {}
        self._count = 0  # of calls
        self._inside = 0  # which trace is being made, by its number
        # How many more calls of a kind, in a trace, run as ever, whatever they are.
        self._left: dict[Any, int] = {}

    def call(self, call: Call) -> Any:
        """What `call.as_ever()` gives, by a trace that is there, if there is one."""
        self._count += 1
        refusal = self._unworthy(call) or call.refusal()
        if refusal is not None:
            return self._as_ever(call, refusal)
        arrays, form = forms.split(call.inputs())
        if not _flax.are_staged_here(arrays):
            return self._as_ever(call, _errors.NOT_STAGED)
        try:
            held = _flax.key_of(call.held(), watched=call.watched)
        except ValueError as error:
            return self._as_ever(call, str(error))
        kind, avals = type(call).__name__, tuple(map(jax.typeof, arrays))
        asked = (kind, call.parts(), form.static, avals, _flax.context())
        rest = _flax.key_of(asked, watched=call.watched)
        if held is None or rest is None:
            return self._as_ever(call, _errors.NO_VALUE)
        key = (held, rest)
        entry = self._entries.get(key)
        if entry is None:
            return self._first(call, key, held)
        if entry.refused is not None or entry.now is not None:
            return self._as_ever(call, entry.refused or _errors.IN_ITSELF)
        if entry.function is None and entry.inside != self._inside:
            # The trace that is being made may be all in which there are others.
            entry.inside = self._inside
            return self._as_ever(call, _errors.FIRST_INSIDE)
        return self._shared(call, entry, arrays, form)

    def refuse(self, name: str, title: str, why: str) -> None:
        """Notes why a module, or nothing in it, is shared."""
        self._report.add(name, title, why)

    def _unworthy(self, call: Call) -> str | None:
        """Why it is not even asked for its key, which takes time, if that is so."""
        if _eager:
            return None
        kind = self._inside, call.kind
        left = self._left.get(kind)
        if left is None:
            self._left[kind] = left = 0 if call.others else 1
            return _errors.FIRST if left else None
        self._left[kind] = max(left - 1, 0)
        return _errors.FEW if left else None

    def _as_ever(self, call: Call, why: str) -> Any:
        self.refuse(call.name, call.title, why)
        before = self._count
        result = call.as_ever()
        if self._count == before and why is not _errors.FEW:
            self._left[self._inside, call.kind] = call.patience
        return result

    def _first(self, call: Call, key: Any, held: Any) -> Any:
        given = forms.as_it_is(call.arguments())
        result = self._as_ever(call, _errors.FIRST)
        entry = _Entry(call.drawn(), self._inside)
        if entry.drawn is None:
            entry.refused = _errors.KEYS_INSIDE
        elif _flax.key_of(call.held(), watched=call.watched) != held:
            entry.refused = _errors.CHANGED
        elif forms.as_it_is(call.arguments()) != given:
            entry.refused = _errors.WRITES
        self._entries[key] = entry
        return result

    def _shared(
        self, call: Call, entry: _Entry, arrays: list[Any], form: forms.Form
    ) -> Any:
        keys = call.draw(entry.drawn)
        if keys is None:
            return self._as_ever(call, _errors.KEYS_TO_COME)
        if not (arrays or keys) or not _flax.are_staged_here(keys):
            call.undraw()
            return self._as_ever(call, _errors.NOT_STAGED)
        made = entry.function is None
        if entry.function is None:
            entry.function = _function(entry)
        entry.now = call, form
        outside, self._inside = self._inside, self._count
        try:
            results = entry.function(arrays, keys)
        except Exception as error:
            # As follows, or whatever has the module fail by itself, too.
            entry.refused = _errors.not_apart(error)
            call.undraw()
            return self._as_ever(call, entry.refused)
        finally:
            entry.now, self._inside = None, outside
        self._report.add(call.name, call.title, _errors.TRACED if made else None)
        return call.result(results.form.join(results.arrays), results.form.said)


def _function(entry: _Entry) -> Callable[..., _Results]:
    """The jitted function that runs the module, inlined wherever it is called."""

    def pure(arrays: Sequence[Any], keys: Sequence[Any]) -> _Results:
        assert entry.now is not None
        call, form = entry.now
        inputs = form.join(arrays)
        output, said = call.apart(inputs, entry.drawn, keys)
        if not forms.are_new(output[0], output):
            raise TypeError("A list or dict comes out twice, or somebody has it.")
        results = _Results(*forms.split(output))
        rest = [leaf for leaf in results.form.leaves if type(leaf) is not forms.Place]
        if _flax.key_of(results.form.static) is None or not all(
            map(_flax.is_fixed, rest)
        ):
            raise TypeError("A leaf is no array, and may be written or hold a tracer.")
        results.form.said = said
        return results

    return jax.jit(pure, inline=_INLINE)
