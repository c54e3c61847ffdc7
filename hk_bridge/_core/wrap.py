"""`wrap`: a Flax class becomes an `hk.Module` class."""

from collections.abc import Callable
import functools
import inspect
from typing import Any
from typing import ClassVar
from typing import ParamSpec
from typing import TypeVar
from typing import Union

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._core import call
from hk_bridge._core import caller
from hk_bridge._core import cell
from hk_bridge._core import document
from hk_bridge._core import guard
from hk_bridge._core import initializers
from hk_bridge._core import module as _module
from hk_bridge._core import signature
from hk_bridge._core import typed

P = ParamSpec("P")
M = TypeVar("M")


class Silent(_module.Bridged):
    """The base of the classes that `wrap` makes of those without `__call__`."""

    flax_class: ClassVar[Any]
    _fields: ClassVar[frozenset[str]] = frozenset()
    _guard: ClassVar[guard.Guard | None] = None  # of a layer of `hk_bridge.nn`

    def __init__(self, *args: Any, name: str | None = None, **kwargs: Any):
        options = {
            key: kwargs.pop(key)
            for key in ("variables", "transient", "keep_rngs")
            if key in kwargs and key not in self._fields
        }
        module = self._made_of(args, kwargs)
        if name is None:
            name = _haiku.camel_to_snake(type(self).__name__)
        super().__init__(module, name=name, **options)

    @_haiku.transparent
    def _made_of(self, args: Any, kwargs: Any) -> Any:
        """The Flax module; one of NNX that has no keys waits for those of init."""
        if self._guard is not None:
            self._guard.check(args, kwargs)
        given = kwargs
        args, kwargs = initializers.taken(self.flax_class, args, kwargs)
        if not _flax.is_nnx_class(self.flax_class):
            try:
                return _flax.build(self.flax_class, args, kwargs)
            except TypeError as error:
                guard.explain(error, given, self._fields)
                raise
        if "rngs" in kwargs and _haiku.running_init():
            return self.flax_class(*args, **kwargs)
        return _module.Unbuilt(self.flax_class, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        # Only for what the Haiku class lacks: fields, properties and the like.
        if name.startswith("_") or "_module" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
        value = getattr(self.module, name)
        if _flax.is_of_graph(value):  # whose values are Haiku's
            part = call.run(self, lambda module: getattr(module, name), (), {})
            return _flax.guarded(part)
        return value

    @_haiku.transparent
    def _line(self) -> str:
        _, args, kwargs = self._unbuilt or _flax.built(self.module)
        return _flax.line(type(self).__name__, args, {**kwargs, "name": self.name})


class Wrapped(Silent, _module.FlaxModule):
    """The base of all other classes that `wrap` makes."""


@typed.declared
def wrap(
    cls: Callable[P, M],
) -> Union[type[M], typed.HaikuClass[typed.Wrapped[M], P]]:  # noqa: UP007
    """The Haiku class of a Flax class, a user's own or linen's.

    Use it once, at module level, as a function or a decorator. The Haiku class has the
    constructor of the Flax class, plus `name`; it takes `variables=` and `transient=`
    as `FlaxModule` does, too. Each public method of the Flax class is a method of the
    Haiku class, which takes the keywords `rngs`, `mutable` and `capture_intermediates`
    of `FlaxModule.__call__`; class methods, which get the Haiku class (so `super()` is
    not for them), static methods, properties and constants are there; the fields can be
    read. `.flax_class` is the Flax class, and `.module` of an instance the linen module
    that it runs.

    What Haiku's modules have wins over a Flax field or method of the same name: `name`,
    `module`, `variables`, `module_name`, `params_dict`, `state_dict`. Reach Flax's by
    `net.module.variables` or `net(..., method="variables")`. A field called `variables`
    or `transient` wins as an argument of the constructor.

    A recurrent cell becomes an `hk.RNNCore`: it is called as `cell(inputs, state)`,
    returns `(output, state)` and has `initial_state(batch_size)`. Its other methods
    take and give what they do in Flax. A class without `__call__` cannot be called in
    Haiku, either, and is no `FlaxModule`.

    An argument named `*_init` (or `init`, `*_initializer`) takes Haiku's initialisers,
    `(shape, dtype)`, as well as Flax's; see `hk_bridge.initializer`.

    Args:
      cls: a linen module class, or an NNX module class. That is built at init as
        `cls(..., rngs=nnx.Rngs(params=key, dropout=key2))`, with a Haiku key for each
        stream that is used (or the `rngs` of the constructor, or of the first call);
        at apply by shapes alone.

    Returns:
      A new subclass of `hk.Module`, of the same name.

    Raises:
      ModuleTypeError: `cls` is no Flax module class.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> @wrap
    ... class Autoencoder(nn.Module):
    ...     width: int = 3
    ...     def setup(self):
    ...         self.encoder, self.decoder = nn.Dense(self.width), nn.Dense(4)
    ...     def encode(self, x):
    ...         return self.encoder(x)
    ...     def __call__(self, x):
    ...         return self.decoder(self.encode(x))
    >>> def forward(x):
    ...     net = Autoencoder(width=2, name="net")
    ...     return net(x), net.encode(x)
    >>> f = hk.transform(forward)
    >>> params = f.init(jax.random.key(0), jnp.ones([1, 4]))
    >>> sorted(params)
    ['net/decoder', 'net/encoder']
    >>> [y.shape for y in f.apply(params, None, jnp.ones([1, 4]))]
    [(1, 4), (1, 2)]
    """
    if not _flax.is_class(cls) and not _flax.is_nnx_class(cls):
        raise _errors.not_a_class(cls)
    flax_class: Any = cls
    attributes = _flax.own_attributes(flax_class)
    bases: tuple[type, ...] = (Wrapped if "__call__" in attributes else Silent,)
    if _flax.is_cell(flax_class):
        bases = (cell.Cell, Wrapped)
        del attributes["__call__"]
    constructor = signature.constructor(flax_class)
    namespace: dict[str, Any] = {
        "__doc__": document.of_class(flax_class),
        "__module__": caller.module_name(flax_class.__module__),
        "__qualname__": flax_class.__qualname__,
        "__init__": _init(constructor, flax_class),
        "flax_class": flax_class,
        "_of_bridge": True,
        "_fields": frozenset(constructor.parameters),
    }
    if namespace["__module__"] == flax_class.__module__:
        # By it `inspect.getsource` finds a class from Python 3.13 on.
        line = vars(flax_class).get("__firstlineno__")
        namespace |= {} if line is None else {"__firstlineno__": line}
    taken = {name for base in bases for name in dir(base)} - {"__call__"}
    taken |= {*_module.INSTANCE, *namespace}
    for name, attribute in attributes.items():
        if name not in taken:
            namespace[name] = _attribute(name, attribute)
    if _flax.is_nnx_class(flax_class):
        modes = {name: getattr(flax_class, name) for name in _MODES}
        for name, mode in modes.items():
            namespace.setdefault(name, _haiku.transparent(_unbound_method(name, mode)))
    metaclass: Any = type(bases[-1])
    made: type[M] = metaclass(flax_class.__name__, bases, namespace)
    return made


# How an NNX module is told to train or to evaluate: the instance of one transform.
_MODES = ("train", "eval", "set_attributes")


def _init(constructor: inspect.Signature, cls: Any) -> Callable[..., None]:
    """`Silent.__init__` with the signature of a Flax class."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Silent.__init__(self, *args, **kwargs)

    __init__.__doc__ = (
        f"Builds the module; the arguments are those of `{document.full_name(cls)}`, "
        "and `name=` is the Haiku name."
    )
    __init__.__signature__ = signature.with_self(  # type: ignore[attr-defined]
        constructor
    )
    return __init__


def _attribute(name: str, attribute: Any) -> Any:
    """What the Haiku class has for an attribute of the Flax class."""
    if hasattr(attribute, "__get__") and not inspect.isroutine(attribute):
        doc = getattr(attribute, "wrapped", attribute).__doc__  # Flax wraps descriptors
        return property(_haiku.transparent(_reader(name)), doc=doc)
    if not (inspect.isfunction(attribute) or _is_compiled(attribute)):
        return attribute
    if hasattr(attribute, "nowrap") and not hasattr(attribute, "compact_name_scope"):
        return _haiku.transparent(_unbound_method(name, attribute))
    is_call, native = name == "__call__", inspect.signature(attribute)

    @functools.wraps(attribute, updated=())
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_call and self._guard is not None and kwargs.get("method") is None:
            self._guard.check_call(args)
        given = signature.options(kwargs, native.parameters)
        chosen = kwargs.pop("method", None) if is_call else name
        return call.run(self, signature.native(chosen), args, kwargs, **given)

    method.flax_method = attribute  # type: ignore[attr-defined]
    method.__signature__ = signature.with_options(  # type: ignore[attr-defined]
        native, **({"method": None} if is_call else {})
    )
    return method


def _is_compiled(attribute: Any) -> bool:
    """Whether `attribute` is a method under `nnx.jit`, an object that binds as one."""
    if isinstance(attribute, (staticmethod, classmethod)):
        return False
    function = getattr(attribute, "__wrapped__", None)
    binds = hasattr(type(attribute), "__get__") and callable(attribute)
    return binds and inspect.isfunction(function)


def _reader(name: str) -> Callable[[Any], Any]:
    """Reads a property of the linen module, bound if it asks for more than fields."""

    def read(self: Any) -> Any:
        if _flax.is_nnx_class(self.flax_class):
            return call.run(self, lambda module: getattr(module, name), (), {})
        try:
            return getattr(self.module, name)
        except Exception as error:
            try:
                bound = self.module.bind(self.variables)
            except _errors.NotInitializedError as missing:
                error.add_note(str(missing))
                raise error from None
        return getattr(bound, name)

    return read


def _unbound_method(name: str, attribute: Any) -> Callable[..., Any]:
    """A method that needs no variables, as Flax calls it on an unbound module."""

    @functools.wraps(attribute, updated=())
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.module, name)(*args, **kwargs)

    return method
