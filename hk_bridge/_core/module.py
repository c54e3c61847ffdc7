"""`FlaxModule`: a Flax module as an `hk.Module`."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
from typing import Self

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core import attributes
from hk_bridge._core import call
from hk_bridge._core import given
from hk_bridge._layout import Where

# What a FlaxModule has, but its class has not.
INSTANCE = (
    *("module", "name", "module_name", "_given", "_transient", "_made", "_others"),
    *("_begins", "_has", "_passing", "_text", "_arguments", "_module", "_unbuilt"),
    *("_keep_rngs", "_kind", "_title", "_memory"),
    *_haiku.INSTANCE,
)


class Unbuilt(NamedTuple):
    """An NNX class with the arguments of its constructor."""

    cls: Any
    args: Any
    kwargs: Any


class Bridged(_haiku.Module):
    """What a `FlaxModule` and the classes of `wrap` are, but for being called."""

    # Haiku's own text would print the arrays of `variables` at every construction.
    AUTO_REPR = False
    _of_bridge = True  # of a class that hk_bridge made, and no user

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        vars(made)["_arguments"] = args, kwargs  # the text of `made` until it is built
        return made

    def __init__(
        self,
        module: _flax.AnyModule,
        *,
        variables: Mapping[str, Any] | None = None,
        transient: str | Collection[str] | Mapping[str, Any] | None = None,
        keep_rngs: bool = False,
        name: str | None = None,
    ):
        """Takes `module` into Haiku.

        Args:
          module: a linen or an NNX module instance. A linen module that is bound to
            variables is unbound, and they become `variables`; so do the values of an
            NNX module, each in the collection of its type. The instance stays as it
            is; what it is at a call counts (`module.eval()`, `nnx.view`). Its arrays
            are not copied: a step that donates what `f.init` gave deletes them in the
            instance, too (`jax.jit(f.init)` copies).
          variables: initial values, a tree as `module.init` returns it, or a part of
            one. What it holds is used at init in place of the initialisers, with its
            own dtype; the rest is initialised, to the same values as without it.
          transient: names of collections that live for one call and never enter Haiku
            state, where that cannot be told at init by the module sowing into them. In
            a dict they have what each call begins with, or None: perturbations of which
            to take the gradient, a cache that the caller keeps.
          keep_rngs: of an NNX module: whether its streams keep keys and counts of their
            own, in Haiku state, and are not fed anew at each call.
          name: the Haiku name; by default the module's own `name`, else its class in
            snake case.

        Raises:
          ModuleTypeError: `module` is no module instance, or has a Flax parent.
          VariablesError: `variables` or `transient` is no dict of dicts, or holds
            shapes in place of arrays.
        """
        made: Any = module
        cls = made.cls if isinstance(made, Unbuilt) else module
        cls = cls if isinstance(cls, type) else type(cls)
        if issubclass(cls, _haiku.Module):
            raise _errors.haiku_given(module)
        if _haiku.is_flax_over_haiku(getattr(module, "parent", None)):
            made = _flax.without_parent(made)
        self._unbuilt = made if isinstance(made, Unbuilt) else None
        parts: Any = (None, None) if self._unbuilt else _flax.unbound(made)
        self._module, bound_to = parts
        self._kind = "nnx" if self._unbuilt or _flax.is_nnx(made) else "linen"
        self._title = _flax.title(self._module) if self._module else cls.__name__
        if name is None:
            own = None if self._kind == "nnx" else vars(self)["_module"].name
            name = own or _haiku.camel_to_snake(self._title)
        super().__init__(name)
        _haiku.without_callers(self)
        vars(self).pop("_arguments", None)
        self._given = bound_to if variables is None else _layout.opened(variables)
        self._transient, self._begins = given.passing(transient, call.owner(self))
        self._keep_rngs = keep_rngs
        self._memory: dict[str, Any] = {}  # what is known of the module, call by call
        self._made: set[Where] | None = None  # what is Flax's, once it was called
        self._others: set[tuple[str, str]] = set()  # what is known not to be
        self._has: set[Where] = set()  # the leaves that it has, if some are given
        self._passing = {"intermediates"}  # and the collections that do not last
        if self._given is not None:
            given.check_form(self._given, call.owner(self))

    __init__.__qualname__ = "FlaxModule.__init__"  # which is what users call

    @property
    @_haiku.transparent
    def module(self) -> Any:
        """The Flax module that runs."""
        if self._module is not None:
            return self._module
        return self._build(self._streams(None), None)

    @_haiku.transparent
    def _streams(self, rngs: Any) -> _flax.Streams:
        """The keys of one call."""
        module = self._unbuilt.cls if self._unbuilt else self._module
        source, initializing = _haiku.key_source(), _haiku.running_init()
        return _flax.streams(module, rngs, source, initializing)

    @_haiku.transparent
    def _build(self, streams: _flax.Streams, rngs: Any) -> Any:
        """The Flax module, built now if it was not."""
        if self._unbuilt is not None and self._module is None:
            given = rngs is not None
            has_key = given or _haiku.key_source() is not None
            if _haiku.running_init() and (has_key or self._given is None):
                self._module = _flax.build_nnx(*self._unbuilt, streams, given)
            else:
                names = list(streams.keys) if given else []
                more = (names, self._keep_rngs, self._memory)
                with _haiku.shapes_alone():
                    self._module = _flax.outline_nnx(*self._unbuilt, *more)
        return self._module

    @property
    @_haiku.transparent
    def variables(self) -> dict[str, Any]:
        """The Flax variables, `{collection: nested dict}`, as they stand.

        They are read through Haiku's getters. Boxes are open.

        Raises:
          NotInitializedError: at init, before the module was called.
        """
        return call.variables(self)

    @_haiku.transparent
    def apply(
        self,
        variables: Mapping[str, Any],
        *args: Any,
        rngs: Any = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = False,
        **kwargs: Any,
    ) -> Any:
        """A call as a pure function, for raw JAX transforms and for solvers.

        It is of `variables`, `rngs` and the arguments alone, draws nothing from Haiku
        and writes nothing to it. Of a linen module it is `module.apply`.

        Args:
          variables: `{collection: nested dict}`, as `net.variables`.
          *args: positional arguments of the method.
          rngs: keys, `{stream: key}`.
          method: what to run, as in a call of the net.
          mutable: the collections that may change.
          **kwargs: keyword arguments of the method.

        Returns:
          The output `y`; with `mutable`, `(y, mutated)`.
        """
        function = _flax.resolve(self.module, method)
        plan = _flax.Plan(self.module, function, mutable, False, self._keep_rngs)
        return _flax.apply(plan, variables, args, kwargs, rngs)

    @_haiku.transparent
    def _line(self) -> str:
        """The line that builds it."""
        return _flax.line(type(self).__name__, (self._module,), {"name": self.name})

    @property
    @_haiku.transparent
    def _auto_repr(self) -> str:
        """The text, which Haiku sets before it builds a module; that counts if the
        class asks for it, or if nobody wants a text."""
        given: str | None = vars(self).get("_text")
        if given is not None:
            return given
        if "name" in vars(self):
            return self._line()
        return _flax.line(type(self).__name__, *vars(self)["_arguments"])

    @_auto_repr.setter
    @_haiku.transparent
    def _auto_repr(self, given: str) -> None:
        if self.AUTO_REPR or not _haiku.texts_wanted():
            vars(self)["_text"] = given


class FlaxModule(Bridged):
    """A Flax module as an `hk.Module`, its variables in Haiku's params and state.

    Build it inside `hk.transform_with_state` (or `hk.transform`, if the module keeps no
    state) and call it as you would call the Flax module:

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> def forward(x, train):
    ...     norm = FlaxModule(nn.BatchNorm(), name="norm")
    ...     x = norm(hk.Linear(8)(x), use_running_average=not train)
    ...     return FlaxModule(nn.Dropout(0.5))(x, deterministic=not train)
    >>> f = hk.transform_with_state(forward)
    >>> key, x = jax.random.key(0), jnp.ones([2, 4])
    >>> params, state = f.init(key, x, train=True)
    >>> sorted(params), sorted(state)
    (['linear', 'norm'], ['norm/batch_stats'])
    >>> y, state = f.apply(params, state, key, x, train=True)

    The collection `params` lives in Haiku params, under the module's Haiku name and the
    path of the Flax submodule (`net/Dense_0`); every other collection in Haiku state,
    with the name of the collection between (`net/batch_stats/BatchNorm_0`).
    `hk_bridge.to_flax` gives them back to Flax. A collection into which the module sows
    is not kept: it lives for one call.

    An NNX module is an instance, and its values are the initial ones; the instance
    itself never changes. Each type of Variables is a collection: `nnx.Param` is
    `params`, `nnx.BatchStat` is `batch_stats`, a type of your own has its name. At each
    call the streams of keys are fed, as `nnx.reseed(module, policy="match_shape",
    dropout=key)` does it, with a Haiku key for each name of a stream that is used.

    >>> from flax import nnx
    >>> model = nnx.Sequential(
    ...     nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(1)))
    >>> f = hk.transform(lambda x: FlaxModule(model, name="net")(x))
    >>> params = f.init(key, x)
    >>> bool((params["net/layers/%i0"]["kernel"] == model.layers[0].kernel[...]).all())
    True

    Attributes:
      module: the Flax module; one of linen is without variables.
    """

    _of_bridge = True

    if not TYPE_CHECKING:  # for which each name would be an attribute

        def __getattr__(self, name: str) -> Any:
            module = vars(self).get("_module")
            raise attributes.missing(type(self).__name__, module, name)

    def __call__(
        self,
        *args: Any,
        rngs: Any = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = None,
        capture_intermediates: bool | Callable[[Any, str], bool] = False,
        **kwargs: Any,
    ) -> Any:
        """Runs a method of the linen module, once.

        The keywords mean what they mean in `nn.Module.apply`, at init as well, but for
        two defaults.

        Args:
          *args: positional arguments of the method.
          rngs: keys, `{stream: key}` or one key for the stream `params`. By default
            each stream that the module asks for gets a key from Haiku, drawn when it is
            first used; a module that asks for none leaves Haiku's keys alone. At init,
            a `params` stream that `rngs` lacks comes from Haiku.
          method: what to run, by default `__call__`: a name, a method, or a function of
            the bound module.
          mutable: the collections that may change. By default all that are kept in
            Haiku state, and only the output is returned.
          capture_intermediates: whether (or by which filter) to store what methods
            return in the collection `intermediates`, which `mutable=["intermediates"]`
            returns.
          **kwargs: keyword arguments of the method.

        Returns:
          The output `y`; with `mutable`, `(y, mutated)` as in Flax.

        Raises:
          StateStructureError: a new variable in a kept collection after init, or one
            whose tree structure changed.
          Whatever Flax and Haiku raise, with a note that tells where.
        """
        return call.run(
            self, method, args, kwargs, rngs, mutable, capture_intermediates
        )
