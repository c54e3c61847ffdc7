"""`wrap`: a Flax class becomes an `hk.Module` class."""

from collections.abc import Callable
import functools
import inspect
import re
import sys
import typing
from typing import Any
from typing import ClassVar
from typing import ParamSpec
from typing import Protocol

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku

from . import call
from . import module as _module

P = ParamSpec("P")


class HaikuClass(Protocol[P]):
    """What `wrap` returns, for static tools: a class with the Flax constructor."""

    flax_class: Any
    __name__: str
    __qualname__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> "Wrapped": ...


class Wrapped(_module.FlaxModule):
    """The base of all classes that `wrap` makes."""

    flax_class: ClassVar[Any]
    _fields: ClassVar[frozenset[str]] = frozenset()
    _of_bridge = True

    def __init__(self, *args: Any, name: str | None = None, **kwargs: Any):
        options = {
            key: kwargs.pop(key)
            for key in ("variables", "transient")
            if key in kwargs and key not in self._fields
        }
        module = _flax.build(self.flax_class, args, kwargs)
        if name is None:
            name = _haiku.camel_to_snake(type(self).__name__)
        super().__init__(module, name=name, **options)

    def __getattr__(self, name: str) -> Any:
        # Only for what the Haiku class lacks: fields, properties and the like.
        if name.startswith("_") or "module" not in vars(self):
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}"
            )
        return getattr(self.module, name)

    def _repr(self) -> str:
        return _flax.describe(self.module)

    _auto_repr = _module.text_property(_repr)


def wrap(cls: Callable[P, Any]) -> HaikuClass[P]:
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
    returns `(output, state)` and has `initial_state(batch_size)`.

    Args:
      cls: a linen module class, or an NNX module class, which goes through
        `flax.nnx.bridge.to_linen` and draws its `rngs` from Haiku.

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
    bases: tuple[type, ...] = (Wrapped,)
    if _flax.is_cell(flax_class):
        bases = (_Cell, _haiku.RNNCore)
    signature = _constructor(flax_class)
    namespace: dict[str, Any] = {
        "__doc__": _document(flax_class),
        "__module__": sys._getframe(1).f_globals.get("__name__", flax_class.__module__),
        "__qualname__": flax_class.__qualname__,
        "__init__": _init(signature, flax_class),
        "flax_class": flax_class,
        "_of_bridge": True,
        "_fields": frozenset(signature.parameters),
    }
    if namespace["__module__"] == flax_class.__module__:
        # By it `inspect.getsource` finds a class from Python 3.13 on.
        line = vars(flax_class).get("__firstlineno__")
        namespace |= {} if line is None else {"__firstlineno__": line}
    taken = {name for base in bases for name in dir(base)} - {"__call__"}
    taken |= {*_module.INSTANCE, *namespace}
    for name, attribute in _flax.own_attributes(flax_class).items():
        if name not in taken:
            namespace[name] = _attribute(name, attribute, _flax.is_nnx_class(cls))
    if _flax.is_cell(flax_class):
        del namespace["__call__"]
    metaclass: Any = type(bases[-1])
    made: HaikuClass[P] = metaclass(flax_class.__name__, bases, namespace)
    return made


def _constructor(cls: Any) -> inspect.Signature:
    """The signature of the Haiku class: Flax's, with `name` and without `parent`."""
    signature = inspect.signature(cls.__init__)
    dropped = ("self", "parent", "name", "rngs")
    try:  # as seen from Flax's file: annotations that are strings mean nothing here
        hints = typing.get_type_hints(
            cls, localns=_flax.NAMES_IN_HINTS, include_extras=True
        )
    except Exception:  # a name that only type checkers see, or that comes later
        hints = {}
    parameters = [
        p.replace(annotation=hints.get(p.name, p.annotation))
        for p in signature.parameters.values()
        if p.name not in dropped
    ]
    name = inspect.Parameter(
        "name", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None
    )
    rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    parameters = [p for p in parameters if p not in rest]
    return inspect.Signature([*parameters, name, *rest])


def _init(signature: inspect.Signature, cls: Any) -> Callable[..., None]:
    """`Wrapped.__init__` with the signature of a Flax class."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        Wrapped.__init__(self, *args, **kwargs)

    __init__.__doc__ = (
        f"Builds the module; the arguments are those of `{_full_name(cls)}`, and "
        "`name` is the Haiku name."
    )
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    kinds = [p.kind for p in signature.parameters.values()]
    if inspect.Parameter.POSITIONAL_ONLY not in kinds:
        this = this.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[this, *signature.parameters.values()]
    )
    return __init__


_OPTIONS = {"rngs": None, "mutable": None, "capture_intermediates": False}


def _attribute(name: str, attribute: Any, nnx: bool) -> Any:
    """What the Haiku class has for an attribute of the Flax class."""
    if hasattr(attribute, "__get__") and not inspect.isroutine(attribute):
        doc = getattr(attribute, "wrapped", attribute).__doc__  # Flax wraps descriptors
        return property(_haiku.transparent(_reader(name)), doc=doc)
    if not inspect.isfunction(attribute):
        return attribute
    if hasattr(attribute, "nowrap") and not hasattr(attribute, "compact_name_scope"):
        return _haiku.transparent(_unbound_method(name, attribute))
    options = {**_OPTIONS, "method": None} if name == "__call__" else _OPTIONS
    function_name = None if name == "__call__" else name

    @functools.wraps(attribute, updated=())
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = {key: kwargs.pop(key) for key in options if key in kwargs}
        chosen = given.pop("method", function_name)
        if nnx and chosen is not None:  # to_linen has one method, told which to run
            chosen, kwargs = None, {**kwargs, "nnx_method": chosen}
        return call.run(self, chosen, args, kwargs, **given)

    keywords = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
        for key, default in options.items()
    ]
    signature = inspect.signature(attribute)
    parameters = [p for p in signature.parameters.values() if p.name not in options]
    last = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    first = [p for p in parameters if p not in last]
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*first, *keywords, *last]
    )
    return method


def _reader(name: str) -> Callable[[Any], Any]:
    """Reads a property of the linen module, bound if it asks for more than fields."""

    def read(self: Any) -> Any:
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


def _document(cls: Any) -> str:
    """The docstring of the Haiku class: Flax's less its examples, and what is ours."""
    name = _haiku.camel_to_snake(cls.__name__)
    text = _without_examples(inspect.getdoc(cls) or "")
    if not text or text.startswith(f"{cls.__name__}("):  # what `dataclass` puts there
        text = f"Flax's {cls.__name__}."
    return f"""{text}

This is a Haiku module, which runs `{_full_name(cls)}`.
Its parameters are in Haiku params under its name, by default `{name}`, and for
submodules below it (`{name}/Dense_0`); other collections are in Haiku state
(`{name}/batch_stats`). It takes `variables=` and `transient=`, too, which are
those of `hk_bridge.FlaxModule`."""


def _full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _without_examples(text: str) -> str:
    """A docstring without its doctests, which are of Flax, and what announces them.

    >>> _without_examples("Adds.\\n\\nExample::\\n\\n  >>> 1 + 1\\n\\nReturns:\\n  y")
    'Adds.\\n\\nReturns:\\n  y'
    >>> _without_examples("It has a\\nstate::\\n\\n  >>> 1 + 1\\nMore.")
    'It has a\\nstate.\\n\\nMore.'
    """
    kept: list[str] = []
    inside: int | None = None  # the indentation of the example that we are in
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip())
        if line.lstrip().startswith(">>>") and inside is None:
            inside = indentation
            while kept and not kept[-1].strip():
                kept.pop()
            if kept and kept[-1].rstrip().endswith(":"):
                lead = kept.pop().rstrip(": ")
                announces = re.search("example|like this", lead, re.IGNORECASE)
                if kept and kept[-1].strip() and not announces:
                    kept.append(f"{lead.rstrip('.')}.")  # the end of a sentence
            kept.append("")
        elif inside is not None and line.strip() and indentation < inside:
            inside = None
        if inside is None:
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


class _Cell(Wrapped):
    """A recurrent cell with the manners of `hk.RNNCore`."""

    _of_bridge = True

    def __call__(  # type: ignore[override]  # Haiku's order is the point
        self,
        inputs: Any,
        prev_state: Any,
        *args: Any,
        rngs: Any = None,
        method: Any = None,
        mutable: Any = None,
        capture_intermediates: Any = False,
        **kwargs: Any,
    ) -> Any:
        """One step, in Haiku's order of arguments; linen's is `(carry, inputs)`.

        Args:
          inputs: of one step, `[B, D]`.
          prev_state: what `initial_state` or the step before gave.
          *args, **kwargs: what else the cell takes.
          rngs, method, mutable, capture_intermediates: as in `FlaxModule.__call__`.

        Returns:
          `(output, next_state)`.
        """
        result = call.run(
            self,
            method,
            (prev_state, inputs, *args),
            kwargs,
            rngs=rngs,
            mutable=mutable,
            capture_intermediates=capture_intermediates,
        )
        if mutable is None or (mutable is False and not capture_intermediates):
            state, output = result
            return output, state
        (state, output), mutated = result
        return (output, state), mutated

    @_haiku.transparent
    def initial_state(self, batch_size: int | None) -> Any:
        """The state before the first step.

        Args:
          batch_size: B of inputs `[B, D]`; None for inputs `[D]`.

        Returns:
          The state that the cell's call takes, arrays `[B, ...]` or `[...]`.

        Raises:
          ValueError: the state depends on more of the input's shape than the batch.
        """
        if self.module.num_feature_axes != 1:
            raise _errors.state_needs_shape(type(self).__name__)
        # The size of the features, here 1, does not matter to the state.
        shape = (1,) if batch_size is None else (batch_size, 1)
        if _flax.starts_at_zero(self.module):
            key = jax.random.key(0)  # of no effect: so none of Haiku's is drawn
        else:
            key = _haiku.next_key()
        return self.module.initialize_carry(key, shape)
