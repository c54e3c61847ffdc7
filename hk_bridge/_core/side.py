"""One call of a bridged module: what the calls at init and at apply have in common."""

import abc
import contextlib
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
import weakref

import jax

from hk_bridge import _abstract
from hk_bridge import _boxes
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core import initializers
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where
from hk_bridge._layout import names

if TYPE_CHECKING:
    from hk_bridge._core.module import Bridged

Variables = dict[str, Any]
Changes = dict[Where, Any]


class Options(NamedTuple):
    """The keywords of a call, as in `nn.Module.apply`."""

    rngs: Any
    mutable: Any
    capture: Any

    @property
    def asked(self) -> Any:
        """The collections that the caller asked for."""
        if self.capture and self.mutable is not None:
            return _flax.with_intermediates(self.mutable)
        return self.mutable


# Of classes that declare variables in a collection into which they sow: who sows there.
sowers: weakref.WeakKeyDictionary[type, dict[str, tuple[str, ...]]]
sowers = weakref.WeakKeyDictionary()


def owner(net: "Bridged") -> str:
    """How messages name `net`."""
    return f"{type(net).__name__} {net.module_name!r} ({net._kind} {net._title})"


class Side(abc.ABC):
    """Answers the Scopes of one call from Haiku."""

    initializing: bool

    def __init__(
        self,
        net: "Bridged",
        ledger: _haiku.Ledger,
        options: Options,
        streams: _flax.Streams,
    ):
        self.net = net
        self.ledger = ledger
        self.options = options
        self.streams = streams
        self.observes = _haiku.is_observed()
        self.hooked = self.initializing or _haiku.sees_state()
        self.so_far: tuple[Variables, _flax.Record] | None = None
        self.touched: set[Where] = set()  # what was made or written in Haiku

    @property
    @abc.abstractmethod
    def mutable(self) -> Any:
        """What Flax may change."""

    @abc.abstractmethod
    def may_share(self) -> bool:
        """Whether another call may have done all that this one will do."""

    @abc.abstractmethod
    def param(self, recipe: _flax.Recipe) -> Any:
        """A parameter that is not among the variables, or MISSING: Flax decides."""

    @abc.abstractmethod
    def start(self, where: Where, made: Any) -> Any:
        """What a variable, no parameter, starts from; `made` by its initialiser."""

    def variables(self) -> Variables:
        """What Haiku held before the call, and what that begins with, for Flax."""
        variables = self.ledger.variables(without=self.net._transient)
        _layout.insert(variables, self.net._begins)
        _boxes.put_back(self.net.module, variables)
        return variables

    def begin(self, variables: Variables, record: _flax.Record) -> None:
        """Notes where variables and what happens are, while the module runs."""
        self.so_far = variables, record

    @property
    def reads_late(self) -> bool:
        return self.ledger.reads_late

    def read_rest(self, variables: Variables, path: names.Path = ()) -> None:
        self.ledger.read_rest(variables, path)
        _boxes.put_back(self.net.module, variables)

    def late(self, recipe: _flax.Recipe) -> Any:
        """A parameter that Haiku holds and that was not read yet, or MISSING."""
        if not self.reads_late:
            return _flax.MISSING
        spec = lambda: recipe.spec(open_box=True)
        value = self.ledger.param(recipe.where, spec)
        return _flax.MISSING if value is _haiku.MISSING else _abstract.copied(value)

    def keeps(self, collection: str) -> bool:
        return collection not in self.net._transient

    def writes(self, collection: str) -> bool:
        """Whether what changes in `collection` is written to Haiku state."""
        if collection == PARAMS or collection in self.net._transient:
            return False
        asked = self.options.asked
        return asked is None or _flax.in_filter(asked, collection)

    def set_state(self, where: Where, value: Any, old: Any) -> None:
        before: Any = jax.tree.structure(old)
        after: Any = jax.tree.structure(value)
        if before != after:
            raise _errors.changed_state_leaf(owner(self.net), *where, before, after)
        self.ledger.set_state(where, value)
        self.touched.add(where)

    @abc.abstractmethod
    def settle(self, outcome: _flax.Outcome) -> bool:
        """Has Haiku hold what the module made and wrote; whether it runs again."""

    def flush(self) -> None:
        """Has Haiku hold what the module made and wrote so far."""
        if self.so_far is not None:
            variables, record = self.so_far
            self.settle(_flax.Outcome(None, variables, record))
            record.wrote.clear()

    def keep(self) -> None:
        """Does so after an error, which comes first, as Haiku keeps what it has."""
        with contextlib.suppress(Exception):
            self.flush()

    def refresh(self, inner: "Side") -> None:
        """Takes over what a call inside this one has Haiku hold."""
        if self.so_far is None:
            return
        for where in inner.touched:
            value = inner.ledger.values.get(where)
            if where.collection != PARAMS:
                value = self.ledger.read_state(where)
            self.ledger.take(where, value)
            _layout.place(self.so_far[0], where, value)

    def drawing_from(self, key: Any) -> contextlib.AbstractContextManager[None]:
        return _haiku.drawing_from(key)

    def explain(self, error: Exception, where: Where, init_fn: Any = None) -> None:
        """Adds to an error about a variable where in Haiku that is."""
        if isinstance(error, (TypeError, ValueError)):  # none of Flax
            if isinstance(error, TypeError) and initializers.is_haikus(init_fn, True):
                error.add_note(_errors.note_initializer(init_fn))
            if _haiku.is_for_a_key(error):
                error.add_note(_errors.note_no_key(init_fn, *where))
            return
        address = _layout.address(self.ledger.name, where)
        which = "params" if where.collection == PARAMS else "state"
        error.add_note(_errors.note_leaf(which, *address, *where))
        if _flax.is_immutable(error):
            error.add_note(_errors.note_mutable(where.collection))
        elif not self.initializing and _flax.lacks_variable(error):
            sower = sowers.get(type(self.net.module), {}).get(where.collection)
            if sower is None:
                error.add_note(_errors.note_missing(which))
            else:
                error.add_note(_errors.note_sown(where.collection, sower))

    def observe(
        self,
        path: tuple[str, ...],
        module: Any,
        method: str,
        run: Any,
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Runs a method of a Flax submodule so that Haiku's interceptors see it."""
        module_name = names.join(self.ledger.name, path)
        text = _flax.describe(module) if _haiku.texts_wanted() else None
        shown = (_flax.title(module), text)

        def inside(*args: Any, **kwargs: Any) -> Any:
            with _haiku.haiku_inside(self.net, self.ledger.name):
                return run(*args, **kwargs)

        return _haiku.observe(
            self.net, module_name, shown, method, inside, args, kwargs
        )
