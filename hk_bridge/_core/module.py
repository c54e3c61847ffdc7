"""`FlaxModule`: a Flax linen module as an `hk.Module`."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._core import call
from hk_bridge._core import given
from hk_bridge._layout import Where

# What a FlaxModule has, but its class has not.
INSTANCE = (
    *("module", "name", "module_name", "_given", "_transient", "_made", "_others"),
    *("_has", "_passing"),
    *("_text", "_arguments"),
    *_haiku.INSTANCE,
)


class Bridged(_haiku.Module):
    """What a `FlaxModule` and the classes of `wrap` are, but for being called."""

    # Haiku's own text would print the arrays of `variables` at every construction.
    AUTO_REPR = False
    _of_bridge = True  # of a class that hk_bridge made, and no user

    def __new__(cls, *args: Any, **kwargs: Any) -> "Bridged":
        made: Bridged = super().__new__(cls)
        vars(made)["_arguments"] = args, kwargs  # the text of `made` until it is built
        return made

    def __init__(
        self,
        module: Any,
        *,
        variables: Mapping[str, Any] | None = None,
        transient: str | Collection[str] | None = None,
        name: str | None = None,
    ):
        """Takes `module` into Haiku.

        Args:
          module: a linen module instance. One that is bound to variables is unbound,
            and they become `variables`.
          variables: initial values, a tree as `module.init` returns it, or a part of
            one. What it holds is used at init in place of the initialisers, with its
            own dtype; the rest is initialised, to the same values as without it.
          transient: names of collections that live for one call and never enter Haiku
            state, where that cannot be told at init by the module sowing into them.
          name: the Haiku name; by default the module's own `name`, else its class in
            snake case.

        Raises:
          ModuleTypeError: `module` is no linen module instance, or has a Flax parent.
          VariablesError: `variables` is not a dict of dicts, or holds shapes in place
            of arrays.
        """
        cls = module if isinstance(module, type) else type(module)
        if issubclass(cls, _haiku.Module):
            raise _errors.haiku_given(module)
        if _haiku.is_flax_over_haiku(getattr(module, "parent", None)):
            module = _flax.without_parent(module)
        self.module, bound_to = _flax.unbound(module)
        if name is None:
            name = self.module.name or _haiku.camel_to_snake(_flax.title(self.module))
        super().__init__(name)
        _haiku.without_callers(self)
        vars(self).pop("_arguments", None)
        self._given = bound_to if variables is None else variables
        self._transient = frozenset(
            [transient] if isinstance(transient, str) else transient or ()
        )
        self._made: set[Where] | None = None  # what is Flax's, once it was called
        self._others: set[tuple[str, str]] = set()  # what is known not to be
        self._has: set[Where] = set()  # the leaves that it has, if some are given
        self._passing = {"intermediates"}  # and the collections that do not last
        if self._given is not None:
            given.check_form(self._given, call.owner(self))

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
    def _line(self) -> str:
        """The line that builds it."""
        names = {"name": self.name}
        return _flax.line(type(self).__name__, (self.module,), names)

    @property
    @_haiku.transparent
    def _auto_repr(self) -> str:
        """The text, which Haiku sets before it builds a module.

        Haiku's counts if the class asks for it, or if nobody wants a text."""
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
    """A Flax linen module as an `hk.Module`, its variables in Haiku's params and state.

    Build it inside `hk.transform_with_state` (or `hk.transform`, if the module keeps no
    state) and call it as you would call the linen module:

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

    Attributes:
      module: the linen module, without variables. `net.module.apply(net.variables,
        ...)` is a pure function, for raw JAX transforms and for solvers.
    """

    _of_bridge = True

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
