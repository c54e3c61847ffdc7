"""What a Scope may ask the bridge while a module runs, and what it records."""

import abc
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
from typing import Protocol

import flax.linen as nn
import jax

from hk_bridge import _layout
from hk_bridge._flax.keys import Streams
from hk_bridge._layout import Where
from hk_bridge._layout import names

if TYPE_CHECKING:
    from hk_bridge._flax.keyed import Keyed

Shape = tuple[int, ...]
MISSING: Any = object()

# Initialisers that do nothing with their key, so that none has to be drawn.
NEED_NO_KEY = (nn.initializers.zeros, nn.initializers.ones)


class Drawing(abc.ABC):
    """An initialiser that tells whether it draws from its key."""

    @abc.abstractmethod
    def draws(self, *args: Any, **kwargs: Any) -> bool:
        """Whether it does, if it is called with these arguments after its key."""


class Recipe(NamedTuple):
    """How `self.param(name, init_fn, *args, **kwargs)` makes a parameter."""

    scope: "Keyed"
    name: str
    init_fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def where(self) -> Where:
        return Where(_layout.PARAMS, (*self.scope.path, self.name))

    def draw(self) -> Any:
        """The initial value, made as Flax does, with the next key of the scope."""
        if self._needs_no_key():
            self.skip()
            return self.init_fn(None, *self.args, **self.kwargs)
        return self._call(self.scope.make_rng("params"), self.args)

    def _needs_no_key(self) -> bool:
        if isinstance(self.init_fn, Drawing):
            return not self.init_fn.draws(*self.args, **self.kwargs)
        needs_none = any(self.init_fn is init_fn for init_fn in NEED_NO_KEY)
        return needs_none and self.scope.has_rng("params")

    def _call(self, key: Any, args: tuple[Any, ...]) -> Any:
        """What the initialiser makes. If it asks Haiku for keys, they come from `key`,
        so that nothing of a trace gets into Haiku."""
        with self.scope.running.host.drawing_from(key):
            return self.init_fn(key, *args, **self.kwargs)

    @property
    def inside(self) -> bool:
        """Whether a lifted transform is around it, where Haiku can make nothing."""
        return self.scope.inside

    def skip(self) -> None:
        """Leaves out the key of `draw`, so that the next parameter gets its own."""
        self.scope.count("params")

    def spec(self, *, open_box: bool = False) -> Any:
        """The initial value's shapes and dtypes, without a key or an array."""

        def make() -> Any:
            made = self._call(jax.random.key(0), self.args)
            return _layout.unbox(made) if open_box else made

        return jax.eval_shape(make)

    def with_shape(self, shape: Shape) -> Any:
        """The initial value in another shape, or MISSING if there is no telling."""
        if not self.args or not isinstance(self.args[0], Collection):
            return MISSING
        args = (shape, *self.args[1:])
        return self._call(self.scope.make_rng("params"), args)


@dataclasses.dataclass
class Record:
    """What a module did while it ran.

    Attributes:
      wrote: where it wrote a variable, other than to make it.
      made: where it made a variable that is no parameter.
      sown: the collections that it sowed into, and which submodule did.
    """

    wrote: set[Where] = dataclasses.field(default_factory=set)
    made: set[Where] = dataclasses.field(default_factory=set)
    sown: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def update(self, other: "Record") -> None:
        self.wrote |= other.wrote
        self.made |= other.made
        self.sown |= other.sown


class Host(Protocol):
    """Answers the Scopes of one run.

    Attributes:
      streams: the keys.
      initializing: whether this is `init`.
      observes: whether somebody wants to see the methods of submodules.
      hooked: whether it matters which variables were written, and not only to what.
      reads_late: whether there are parameters that are only read when asked for. The
        variables then have the collection `params`, be it empty.
    """

    streams: Streams
    initializing: bool
    observes: bool
    hooked: bool

    @property
    def reads_late(self) -> bool: ...

    def param(self, recipe: Recipe) -> Any:
        """A parameter that is not among the variables, or MISSING: Flax decides."""

    def leaf(self, recipe: Recipe) -> Any:
        """A leaf of NNX, of any collection, that is not among the variables."""

    def keeps(self, collection: str) -> bool:
        """Whether `collection` outlives the call."""

    def read_rest(self, variables: dict[str, Any], path: names.Path = ()) -> None:
        """Puts the parameters below `path` that were not read into `variables`."""

    def start(self, where: Where, made: Any) -> Any:
        """What a variable, no parameter, starts from; `made` by its initialiser."""

    def drawing_from(self, key: Any) -> contextlib.AbstractContextManager[None]:
        """Where keys that code asks Haiku for come from `key`; of None, none do."""

    def explain(self, error: Exception, where: Where, init_fn: Any = None) -> None:
        """Adds a note to an error about a variable, or raised by its initialiser."""

    def observe(
        self,
        path: tuple[str, ...],
        module: nn.Module,
        method: str,
        run: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Runs a method of a submodule, so that Haiku's interceptors see it."""


class Alone:
    """The host of a module that runs without Haiku, at init."""

    initializing = True
    observes = False
    hooked = True  # what was sown is asked
    reads_late = False

    def __init__(self, streams: Streams):
        self.streams = streams

    def param(self, recipe: Recipe) -> Any:
        return MISSING

    def leaf(self, recipe: Recipe) -> Any:
        return recipe.draw()

    def keeps(self, collection: str) -> bool:
        return True

    def read_rest(self, variables: dict[str, Any], path: names.Path = ()) -> None:
        pass

    def start(self, where: Where, made: Any) -> Any:
        return made

    def drawing_from(self, key: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def explain(self, error: Exception, where: Where, init_fn: Any = None) -> None:
        pass

    def observe(self, path: Any, module: Any, method: Any, *call: Any) -> Any:
        raise AssertionError("Nobody observes.")
