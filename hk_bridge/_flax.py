"""All that is demanded of Flax: what a linen module is, and running a method of it.

Flax's own `init` and `apply` bind a module to a plain `flax.core.Scope`. Here it is
bound to a subclass of it, which asks the bridge for what Haiku decides: a random key
when a stream is first used, and a parameter when one is first made. All else is Flax's
code.

What is private in Flax and used here, since there is no public way (all since flax
0.12.2 and long before; `tests/test_doors.py` names each):

* `nn.Module._module_checks` and `flax.linen.module._get_unbound_fn`: what `apply` does
  before it runs a method, whose errors have to be Flax's own;
* `flax.linen.module._global_interceptor_stack` and its `_storage`: nothing public tells
  whether somebody intercepts methods, nor starts an interceptor below the others;
* `nn.Module.clone(_deep_clone=True)`, `_state` and `__post_init__`: how `apply` and
  `bind` bind a module, and what there is of it for one without modules in its fields;
* `Scope._variables`, `_root`, `_invalid`, `_check_valid`, `_validate_trace_level`,
  `flax.core.scope.LazyRng`, `child_rng_token` and `flax.core.tracers.current_trace`:
  what `Scope`, its `push` and `make_rng` are made of, which a subclass with keys drawn
  on demand must write anew;
* the local variable `rng_filters` of `flax.core.lift._partial_pack`: the only place
  that tells which streams a lifted transform hands on (`Scope.rngs`).
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import copy
import dataclasses
import enum
import functools
import hashlib
import itertools
import re
import sys
import types
from typing import Any
from typing import NamedTuple
import weakref

from flax import config
from flax import core
from flax import errors
from flax import serialization as serialization
from flax.core import meta
from flax.core import scope as core_scope
from flax.core import tracers
import flax.linen as nn
from flax.linen import module as linen_module
from flax.linen import spmd
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _text

linen = nn
# What `flax.typing.CollectionFilter` refers to by its name, and does not import.
NAMES_IN_HINTS = {"DenyList": core.DenyList}
Filter = core_scope.CollectionFilter
Key = jax.Array
Path = tuple[str, ...]
Shape = tuple[int, ...]

# Streams that Flax's own layers ask for. A lifted transform takes its keys before it
# runs, when the streams that the code inside will ask for cannot be known.
_STREAMS = ("params", "dropout")
_NOT_AT_INIT = nn.DenyList("intermediates")  # Flax's default for init
MISSING: Any = object()
_numbers = itertools.count()


def is_class(value: Any) -> bool:
    """Whether `value` is a linen module class."""
    return isinstance(value, type) and issubclass(value, nn.Module)


def _nnx() -> Any:
    """`flax.nnx` if somebody imported it, which takes long; else nothing is of it."""
    return sys.modules.get("flax.nnx")


def is_nnx_class(value: Any) -> bool:
    """Whether `value` is an NNX module class."""
    nnx = _nnx()
    return nnx is not None and isinstance(value, type) and issubclass(value, nnx.Module)


def is_cell(cls: type) -> bool:
    """Whether `cls` is a recurrent cell."""
    return issubclass(cls, nn.RNNCellBase)


def is_call(module: nn.Module, method: Any) -> bool:
    """Whether `method`, as `module.apply` takes it, is the module's own `__call__`."""
    if method is None or isinstance(method, str):
        return method in (None, "__call__")
    function = getattr(method, "__func__", method)
    return callable(module) and function is type(module).__call__


def starts_at_zero(cell: Any) -> bool:
    """Whether the first carry of a recurrent cell needs no key."""
    return getattr(cell, "carry_init", None) is nn.initializers.zeros_init()


def build(cls: Any, args: Any, kwargs: Any) -> nn.Module:
    """An instance of a linen class, or of what the NNX bridge makes of an NNX class."""
    if is_nnx_class(cls):
        made: nn.Module = _nnx().bridge.to_linen(cls, *args, **kwargs)
        return made.clone(parent=None)
    built: nn.Module = cls(*args, **kwargs, parent=None)
    return built


def own_attributes(cls: type) -> dict[str, Any]:
    """What the author of `cls` wrote: the attributes that are no fields."""
    fields = getattr(cls, "__dataclass_fields__", {})
    of_flax = (_nnx() if is_nnx_class(cls) else nn).Module
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base not in of_flax.__mro__:
            found.update(vars(base))
    made = {*fields, *_on_every_class(of_flax)}
    return {
        name: value
        for name, value in found.items()
        if name == "__call__" or not (name in made or name.startswith("__"))
    }


@functools.cache
def _on_every_class(base: type) -> frozenset[str]:
    """The attributes that Flax itself puts on the subclasses of `base`, or calls."""
    return frozenset({"setup", *vars(type("Empty", (base,), {}))})


def lacks_key(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a key."""
    return isinstance(error, errors.InvalidRngError)


def lacks_param(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a parameter."""
    wanted = (errors.ScopeParamNotFoundError, errors.ScopeCollectionNotFound)
    return isinstance(error, wanted)


def lacks_variable(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a parameter or another variable."""
    return lacks_param(error) or isinstance(error, errors.ScopeVariableNotFoundError)


def is_immutable(error: Exception) -> bool:
    """Whether Flax raised `error` for a collection that may not change."""
    return isinstance(error, errors.ModifyScopeVariableError)


def without_parent(module: nn.Module) -> nn.Module:
    """`module` as if it had been built outside of all others, its own name undone."""
    automatic = re.fullmatch(rf"{type(module).__name__}_\d+", module.name or "")
    return module.clone(parent=None, name=None if automatic else module.name)


def unbound(module: Any) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """`module` free of any scope, and the variables that it was bound to, if it was.

    Raises:
      ModuleTypeError: `module` is no linen module instance, or has a Flax parent.
    """
    if not isinstance(module, nn.Module):
        if isinstance(module, type) and issubclass(module, nn.Module):
            raise _errors.class_given(module)
        cls = module if isinstance(module, type) else type(module)
        raise (
            _errors.nnx_given(module)
            if is_nnx_class(cls)
            else _errors.not_a_module(module)
        )
    if isinstance(module.parent, nn.Module):
        raise _errors.has_parent(module, module.parent)
    if module.scope is not None:
        return module.unbind()
    return module, None


class Streams:
    """The keys of one call: given as `rngs`, else one of Haiku's a stream, when used.

    Args:
      module: the linen module, for the texts of Flax's errors.
      rngs: as `module.apply` takes it; None draws every stream from Haiku.
      draw: gives a new Haiku key; None where Haiku has none.
      initializing: `rngs` without `params` draw that stream from Haiku at init.
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
        self.keys: dict[str, Key] = dict(rngs or {})
        self._draw = draw
        self._from_haiku = ("params",) if initializing else ()
        self._any = rngs is None

    def only(self, keys: Mapping[str, Key]) -> "Streams":
        """Streams that offer the same, but have these keys and cannot draw another."""
        streams = copy.copy(self)
        streams.keys = dict(keys)
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
            assert self._draw is not None
            self.keys[stream] = self._draw()
        return self.keys[stream]


def _no_other() -> Key:
    raise AssertionError("A shared trace asks for the streams of the first run.")


def _checked_rngs(
    module: nn.Module, rngs: Any, initializing: bool
) -> Mapping[str, Key]:
    """`rngs` as a dict, or Flax's own error for them."""

    def nothing(_: Any) -> None:
        """Run by Flax in place of the module, so that it only checks."""

    if isinstance(rngs, dict) and initializing:
        core.init(nothing)(rngs)
    elif isinstance(rngs, dict):
        core.apply(nothing)({}, rngs=rngs)
    elif initializing:
        module.init(rngs, method=nothing)
    else:
        module.apply({}, rngs=rngs, method=nothing)
    return rngs if isinstance(rngs, dict) else {"params": rngs}


# Initialisers that do nothing with their key, so that none has to be drawn.
_NEED_NO_KEY = (nn.initializers.zeros, nn.initializers.ones)


class Parameter(NamedTuple):
    """A parameter as `self.param(name, init_fn, *args, **kwargs)` asks for it."""

    scope: "Scope"
    name: str
    init_fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return (*self.scope.path, self.name)

    def draw(self) -> Any:
        """The initial value, made as Flax does, with the next key of the scope."""
        if self.init_fn in _NEED_NO_KEY and self.scope.has_rng("params"):
            self.skip()
            return self.init_fn(None, *self.args, **self.kwargs)
        return self.init_fn(self.scope.make_rng("params"), *self.args, **self.kwargs)

    def skip(self) -> None:
        """Leaves out the key of `draw`, so that the next parameter gets its own."""
        self.scope.count("params")

    def spec(self) -> Any:
        """The initial value's shapes and dtypes, without a key or an array."""
        return jax.eval_shape(
            lambda: self.init_fn(jax.random.key(0), *self.args, **self.kwargs)
        )

    def with_shape(self, shape: Shape) -> Any:
        """The initial value in another shape, or MISSING if there is no telling."""
        if not self.args or not isinstance(self.args[0], Collection):
            return MISSING
        args = (shape, *self.args[1:])
        return self.init_fn(self.scope.make_rng("params"), *args, **self.kwargs)


@dataclasses.dataclass(frozen=True)
class Call:
    """What one call asks of Flax, and what it asks back.

    Attributes:
      streams: the keys.
      mutable: the collections that may change.
      initializing: whether this is `init`.
      create: gives the value of a parameter that does not exist, or MISSING to have
        Flax decide.
      start: gives what a variable other than a parameter starts from at init, by its
        collection, path and the value that its initialiser made.
      observe: runs each method of a submodule, where somebody wants to see them:
        `observe(path, module, method_name, run, args, kwargs)`.
      explain: adds a note to an error about the variable at a collection and path.
      flags: of the scope.
      sown: the collections that the modules turn out to sow into, at init.
    """

    streams: Streams
    mutable: Filter
    initializing: bool
    create: Callable[[Parameter], Any]
    explain: Callable[[Exception, str, Path], None]
    start: Callable[[str, Path, Any], Any] | None = None
    observe: Callable[..., Any] | None = None
    flags: Mapping[str, Any] = dataclasses.field(init=False)
    sown: "_Sown" = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        flags: dict[str, Any] = {"initializing": True} if self.initializing else {}
        if self.initializing or self.observe is not None:
            # Keeps nn.jit, whose cache asks for the hash of the flags, from answering
            # with a trace in which nobody watched. An object() will not do: its hash
            # is its address, which the next one may have, too.
            flags["hk_bridge"] = next(_numbers)
        object.__setattr__(self, "flags", core.FrozenDict(flags))
        object.__setattr__(self, "sown", _Sown())

    def runs(self, module: nn.Module) -> bool:
        """Whether `module` runs in this call: not unbound, nor in an `apply` inside.

        At init and where somebody observes, no other call has the same flags."""
        return module.scope is not None and module.scope.flags == self.flags

    def with_keys(self, keys: Mapping[str, Key]) -> "Call":
        """This call with other keys for the streams that it uses, and no others."""
        streams = self.streams.only(keys)
        return dataclasses.replace(self, streams=streams)


class Scope(core.Scope):
    """A Scope that draws keys when they are used and lets the bridge make parameters.

    Lifted transforms (`nn.scan`, `nn.remat`, ...) make plain Scopes inside; they take
    all that they need from the attributes of this one."""

    _rngs: dict[str, Any]

    def __init__(
        self,
        call: Call,
        variables: dict[str, Any],
        name: str | None = None,
        parent: core.Scope | None = None,
        path: Iterable[str] = (),
        debug_path: Iterable[str] = (),
    ):
        # What core.Scope.__init__ does, in less time; a test compares.
        self.call = call
        self._variables = variables
        self.parent = parent
        self.name = name
        self.path = tuple(path)
        self.debug_path = tuple(debug_path) or self.path
        self._rngs = {}
        if parent is None:
            keys = call.streams.keys.items()
            self._rngs = {k: core_scope.LazyRng.create(v) for k, v in keys}
        self.mutable = call.mutable
        self.flags: Any = call.flags
        self._root = None if parent is None else parent.root
        self.trace_level = tracers.current_trace()
        self.rng_counters = dict.fromkeys(self._rngs, 0)
        self.reservations = collections.defaultdict(set)
        self._invalid = False
        self._hash = id(variables if parent is None else parent.root._variables)

    def _check(self) -> None:
        """Refuses use after the call, and where Flax refuses another trace."""
        self._check_valid()  # type: ignore[no-untyped-call]
        self._validate_trace_level()  # type: ignore[no-untyped-call]

    def __hash__(self) -> int:
        """Coarser than Flax's, and faster: equal scopes have equal hashes."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    # Keys.

    @property
    def rngs(self) -> dict[str, Any]:
        """The streams at hand, which only lifted transforms and the NNX bridge ask for.

        A lifted transform hands on the streams that its `rngs=` or `split_rngs=` names,
        so those are drawn now; there is no way to draw a Haiku key inside it."""
        if self.call.initializing:
            self.call.sown.watch(self.call)
        filters = sys._getframe(1).f_locals.get("rng_filters", (True,))
        named = {name for f in filters for name in _names_in(f)}
        for stream in (*_STREAMS, *sorted(named.difference(_STREAMS))):
            wanted = any(core_scope.in_filter(f, stream) for f in filters)
            if wanted and self.has_rng(stream):
                self._stream(stream)
        _complete(self.rng_counters, self._rngs)
        return self._rngs

    @rngs.setter
    def rngs(self, rngs: dict[str, Any]) -> None:
        self._rngs = rngs

    def _stream(self, stream: str) -> Any:
        if stream not in self._rngs:
            parent: Any = self.parent
            if parent is None:
                lazy = core_scope.LazyRng.create(self.call.streams.key(stream))
            else:
                lazy = core_scope.LazyRng.create(parent._stream(stream), self.path[-1])
            self._rngs[stream] = lazy
            self.rng_counters.setdefault(stream, 0)
        return self._rngs[stream]

    def has_rng(self, name: str) -> bool:
        return name in self._rngs or self.call.streams.offers(name)

    def make_rng(self, name: str = "params") -> Key:
        if not self.has_rng(name):
            if not self.has_rng("params"):
                return super().make_rng(name)  # raises
            name = "params"
        self._check()  # before a key is drawn, which a wrong trace would keep
        lazy = self._stream(name)
        return _folded(lazy.rng, (*lazy.suffix, self.count(name)))

    def count(self, stream: str) -> int:
        """Counts one key of `stream` as used."""
        self.rng_counters[stream] = self.rng_counters.get(stream, 0) + 1
        return self.rng_counters[stream]

    # Children.

    def push(
        self, name: str | None = None, prefix: str = "", reuse: bool = False
    ) -> "Scope":
        self._check()
        if name is None:
            name = self.default_name(prefix)
        if not reuse or name not in self.reservations:
            self.reserve(name)
        child = Scope(
            self.call, {}, name, self, (*self.path, name), (*self.debug_path, name)
        )
        child._rngs = {
            key: core_scope.LazyRng.create(rng, name) for key, rng in self._rngs.items()
        }
        counters: Any = self.rng_counters  # of streams, and by token those of children
        child.rng_counters = counters.setdefault(
            (core_scope.child_rng_token, name), dict.fromkeys(child._rngs, 0)
        )
        return child

    def rewound(self, rewind_rngs: bool = False) -> "Scope":
        self._check()
        scope = Scope(
            self.call,
            self._variables,
            self.name,
            self.parent,
            self.path,
            self.debug_path,
        )
        scope._rngs = self._rngs
        scope.rng_counters = (
            dict.fromkeys(self._rngs, 0) if rewind_rngs else self.rng_counters
        )
        return scope

    # Variables.

    def param(
        self,
        name: str,
        init_fn: Callable[..., Any],
        *args: Any,
        unbox: bool = True,
        **kwargs: Any,
    ) -> Any:
        try:
            value = self._param(Parameter(self, name, init_fn, args, kwargs))
            if value is MISSING:
                return super().param(name, init_fn, *args, unbox=unbox, **kwargs)
        except errors.FlaxError as error:
            self._explain(error, "params", name)
            raise
        self.reserve(name, "params")
        is_plain = isinstance(value, jax.Array)  # meta.unbox takes long to see that
        return meta.unbox(value) if unbox and not is_plain else value

    def _param(self, parameter: Parameter) -> Any:
        """The value, or MISSING to have Flax decide, or refuse it."""
        name = parameter.name
        if self.name_reserved(name, "params"):
            return MISSING
        if self.has_variable("params", name):
            value = self.get_variable("params", name)
            return value if _has_shapes(value, _initial_shapes(parameter)) else MISSING
        value = self.call.create(parameter)
        if value is not MISSING and self.call.initializing:
            self._mutable_collection("params")[name] = value
        return value

    def is_mutable_collection(self, col: str) -> bool:
        if self.call.initializing and _is_sowing(sys._getframe(1)):
            self.call.sown.add(col)
        return super().is_mutable_collection(col)

    def variable(
        self,
        col: str,
        name: str,
        init_fn: Callable[..., Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if init_fn is not None and self.call.start is not None:
            init_fn = self._starting(col, name, init_fn, self.call.start)
        try:
            return super().variable(col, name, init_fn, *args, **kwargs)
        except errors.FlaxError as error:
            self._explain(error, col, name)
            raise

    def _starting(
        self, col: str, name: str, init_fn: Callable[..., Any], start: Any
    ) -> Callable[..., Any]:
        """`init_fn`, with what the bridge has the variable start from."""
        path = (*self.path, name)
        return lambda *args, **kwargs: start(col, path, init_fn(*args, **kwargs))

    def put_variable(self, col: str, name: str, value: Any) -> None:
        try:
            super().put_variable(col, name, value)
        except errors.FlaxError as error:
            self._explain(error, col, name)
            raise

    def _explain(self, error: Exception, col: str, name: str) -> None:
        self.call.explain(error, col, (*self.path, name))


def _is_sowing(frame: types.FrameType | None) -> bool:
    """Whether `sow` or `perturb` asks, of a module that need not be running."""
    if frame is not None and frame.f_code is nn.Module.is_mutable_collection.__code__:
        frame = frame.f_back
    codes = (nn.Module.sow.__code__, nn.Module.perturb.__code__)
    return frame is not None and frame.f_code in codes


def _complete(counters: dict[Any, Any], streams: Iterable[str]) -> None:
    """Has a count for each stream, as Flax expects, in children made before it was."""
    for stream in streams:
        counters.setdefault(stream, 0)
    for child in [c for c in counters.values() if isinstance(c, dict)]:
        _complete(child, streams)


def _folded(key: Key, suffix: Iterable[str | int]) -> Key:
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


def _has_shapes(value: Any, shapes: Any) -> bool:
    """Whether the leaves of `value` have these shapes, as far as both go."""
    if shapes is None:
        return False
    if hasattr(value, "shape"):
        return bool(not shapes or value.shape == shapes[0])
    found = map(np.shape, jax.tree.leaves(value))
    return all(a == b for a, b in zip(found, shapes, strict=False))


# The shapes of the leaves that an initialiser makes. Flax evaluates each initialiser
# anew at each `apply`, only to compare shapes, which is a third of its tracing time.
_SHAPES: dict[Any, tuple[Shape, ...]] = {}
_MOST_SHAPES = 4096


def _initial_shapes(parameter: Parameter) -> Any:
    """The shapes that its initialiser makes, or None if nothing determines them."""
    asked = (parameter.init_fn, parameter.args, dict(parameter.kwargs))
    key = frozen_key(asked, bound=True)
    if key is None or key in _SHAPES:
        return _SHAPES.get(key)
    made = jax.tree.leaves(parameter.spec())
    if len(_SHAPES) >= _MOST_SHAPES:
        _SHAPES.clear()
    return _SHAPES.setdefault(key, tuple(leaf.shape for leaf in made))


# What is the same wherever it is equal, and does not change.
_PLAIN: tuple[Any, ...] = (
    *(int, str, bytes, type, types.NoneType, types.EllipsisType, enum.Enum),
    *(types.BuiltinFunctionType, np.dtype, np.ufunc, jax.numpy.ufunc),
    *(jax.core.ShapedArray, jax.tree_util.PyTreeDef, jax.sharding.PartitionSpec),
    *(jax.sharding.Sharding, jax.sharding.Mesh, jax.sharding.AbstractMesh),
)


def frozen_key(value: Any, *, bound: bool = False) -> Any:
    """What determines `value`, hashable, or None if there is no such thing.

    Args:
      bound: takes a module that is bound to variables for its fields. If a closure
        looks at more of it than that, the key says too little: enough for a shape,
        which is only checked, not for a value.
    """
    try:
        key = _frozen(value, bound)
        hash(key)
    except (TypeError, ValueError, RecursionError):
        return None  # unhashable, an empty cell, or a closure that holds itself
    return key


def _frozen(value: Any, bound: bool) -> Any:
    """`value` with functions as code and what they close over, modules as fields."""
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_frozen(item, bound) for item in value)
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        inside = (cells, value.__defaults__, value.__kwdefaults__)
        return value.__code__, id(value.__globals__), _frozen(inside, bound)
    if isinstance(value, _PLAIN) or type(value) is object:
        return type(value), value
    if isinstance(value, float):
        return type(value), value.hex()  # 0.0 == -0.0
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return functools.partial, _frozen(parts, bound)
    if isinstance(value, nn.Module):
        is_bound = value.scope is not None
        if is_bound and not bound:
            raise TypeError("Its variables matter, too.")
        hidden = ("name",) if is_bound else ()
        return type(value), _frozen(_fields(value, *hidden), bound)
    if isinstance(value, Mapping):
        return type(value), _frozen(tuple(value.items()), bound)
    if isinstance(value, jax.Array):
        raise TypeError("A tracer would be kept alive, and goes by its identity.")
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        state = {name: getattr(value, name, MISSING) for name in names}
        return type(value), _frozen({**state, **getattr(value, "__dict__", {})}, bound)
    if hasattr(value, "__wrapped__"):  # jitted, or with a derivative of its own
        return type(value), value, _frozen(value.__wrapped__, bound)
    if not bound:
        raise TypeError("It could change, or equal what is not the same.")
    return type(value), value


def _names_in(stream_filter: Any) -> set[str]:
    """The names that a filter spells out."""
    if isinstance(stream_filter, nn.DenyList):
        return _names_in(stream_filter.deny)
    return (
        set()
        if isinstance(stream_filter, bool)
        else core_scope.filter_to_set(stream_filter)
    )


class Outcome(NamedTuple):
    """What a call brought: the output, all variables, the collections sown into."""

    output: Any
    variables: dict[str, Any]
    sown: frozenset[str]
    scope: Scope | None

    def mutated(self, mutable: Filter) -> Any:
        """The collections in `mutable`, as `module.apply` returns them."""
        assert self.scope is not None
        self.scope.mutable = mutable
        return self.scope.mutable_variables()


def mutable_at_init(mutable: Filter | None) -> Filter:
    """What may change at init: what Flax lets, and what was asked for."""
    return core_scope.union_filters(_NOT_AT_INIT, mutable) if mutable else _NOT_AT_INIT


def with_intermediates(mutable: Filter) -> Filter:
    """`mutable` and what `capture_intermediates` fills."""
    return core_scope.union_filters(mutable, "intermediates")


def in_filter(mutable: Filter, collection: str) -> bool:
    """Whether `mutable` lets `collection` change."""
    return core_scope.in_filter(mutable, collection)


def resolve(module: nn.Module, method: Any) -> Callable[..., Any]:
    """`method` as `module.apply` takes it, as a function of a bound module.

    Raises Flax's own errors for a module or a method that cannot be run.
    """
    nn.Module._module_checks(module)
    if method is None:
        method = module.__call__
    elif isinstance(method, str):
        name, method = method, getattr(module, method)
        if not callable(method):
            raise TypeError(
                f"'{type(module).__name__}.{name}' must be a callable, got "
                f"{type(method)}."
            )
        if isinstance(method, nn.Module):  # a submodule: that of the bound module

            def method(bound: Any, *args: Any, **kwargs: Any) -> Any:
                return getattr(bound, name)(*args, **kwargs)

    if isinstance(getattr(method, "__self__", None), nn.Module):
        method = getattr(method, "__func__", method)  # as in _get_unbound_fn
    is_function = isinstance(method, types.FunctionType)  # and can be hashed
    if not is_function or method not in _CALLABLE:
        linen_module._get_unbound_fn(method)
        if is_function:
            _CALLABLE.add(method)
    function: Callable[..., Any] = method
    return function


# Functions that have an argument. Flax looks at their signature, which takes long.
_CALLABLE: weakref.WeakSet[Any] = weakref.WeakSet()


class _Nobody(nn.Module):
    """A module for nn.apply, where only what it sets up is wanted."""


def run(
    module: nn.Module,
    function: Callable[..., Any],
    variables: dict[str, Any],
    call: Call,
    capture_intermediates: bool | Callable[[Any, str], bool],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Outcome:
    """Runs `function` of `module` bound to `variables`, which change in place."""

    def body(_: Any) -> Any:
        return function(_bound(module, root), *args, **kwargs)

    watching = contextlib.closing(call.sown)
    with Scope(call, variables).temporary() as root, _observed(call), watching:
        if capture_intermediates:
            # nn.apply sets up the capture, which holds for all that runs inside.
            capture = nn.apply(body, _Nobody(), False, capture_intermediates)
            output, _ = capture({})
        else:
            output = body(None)
    return Outcome(output, root._variables, frozenset(call.sown), root)


def init(
    module: nn.Module,
    function: Callable[..., Any],
    rngs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Any], frozenset[str]]:
    """What `module.init` gives, without Haiku, and the collections sown into."""
    call = Call(
        streams=Streams(module, rngs, None, initializing=True),
        mutable=_NOT_AT_INIT,
        initializing=True,
        create=lambda parameter: MISSING,
        explain=lambda error, col, path: None,
    )
    outcome = run(module, function, {}, call, False, args, kwargs)
    return outcome.variables, outcome.sown


def _bound(module: nn.Module, scope: Scope) -> nn.Module:
    """`module` with this scope, as `module.clone(parent=scope, _deep_clone=True)` is.

    Flax looks for modules in each field, which takes the most of the time of binding a
    layer whose fields have no place for them."""
    simple = type(module).__post_init__ is nn.Module.__post_init__
    if simple and _is_flat(_fields(module)):
        bound: nn.Module = module.clone(parent=None)
        bound.parent = bound.scope = scope  # type: ignore[assignment]  # a Scope may be
        bound._state.is_initialized = True
    else:
        bound = module.clone(parent=scope, _deep_clone=True)
    return bound


def _fields(module: nn.Module, *hidden: str) -> tuple[Any, ...]:
    """What `module` was built with, but for its parent and what is hidden."""
    fields = [f.name for f in dataclasses.fields(module) if f.init]
    hidden = ("parent", *hidden)
    return tuple(getattr(module, name) for name in fields if name not in hidden)


def _is_flat(value: Any) -> bool:
    """Whether `value` is nothing that could be, or hold, a module."""
    if type(value) is tuple:
        return all(map(_is_flat, value))
    return isinstance(value, _FLAT)


_FLAT = (int, float, str, type, types.NoneType, types.FunctionType)


class _Sown(set[str]):
    """The collections that the modules of a call sow into.

    A Scope of ours adds to them by itself. Those under lifted transforms are plain, and
    only an interceptor gets to see them, which costs each call of a method: so it
    starts with the first lifted transform, and below the interceptors that the module
    itself may have in force by then, which leave from the top."""

    _stop: Callable[[], None] | None = None

    def watch(self, call: Call) -> None:
        """Sees, from now on until `close`, who sows under lifted transforms."""
        if self._stop is not None:
            return

        def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if call.runs(context.module):
                _watch_modules(context.module, self)
            return run(*args, **kwargs)

        interceptors = linen_module._global_interceptor_stack._storage
        interceptors.insert(0, interceptor)
        self._stop = lambda: interceptors.remove(interceptor)

    def close(self) -> None:
        """Ends watching."""
        if self._stop is not None:
            self._stop()
            self._stop = None  # a cycle, which would keep the call alive


def _watch_modules(value: Any, sown: set[str]) -> None:
    """Watches the plain Scopes of a module, and of what it holds in its fields."""
    if isinstance(value, nn.Module):
        if type(value.scope) is core.Scope:
            _watch(value.scope, sown)
        value = _fields(value)
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for held in value:
            _watch_modules(held, sown)


def _watch(scope: core.Scope, sown: set[str]) -> None:
    """Has `scope`, and all that come of it, note the collections sown into."""
    if "push" in vars(scope):
        return
    this = weakref.ref(scope)  # a strong one would keep tracers alive, in a cycle

    def watched(method: Callable[..., Any]) -> Callable[..., core.Scope]:
        def made(*args: Any, **kwargs: Any) -> core.Scope:
            other: core.Scope = method(this(), *args, **kwargs)
            _watch(other, sown)
            return other

        return made

    def is_mutable_collection(col: str) -> bool:
        if _is_sowing(sys._getframe(1)):
            sown.add(col)
        return core.Scope.is_mutable_collection(this(), col)  # type: ignore[arg-type]

    vars(scope).update(
        push=watched(core.Scope.push),
        rewound=watched(core.Scope.rewound),
        is_mutable_collection=is_mutable_collection,
    )


def _observed(call: Call) -> contextlib.AbstractContextManager[None]:
    """Has `call.observe` run the methods of submodules."""
    if call.observe is None:
        return contextlib.nullcontext()
    observe = call.observe

    def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, name = context.module, context.method_name
        if not call.runs(module) or not module.path or name == "setup":
            return run(*args, **kwargs)
        return observe(module.path, module, name, run, args, kwargs)

    return nn.intercept_methods(interceptor)


def context() -> Any:
    """What else of Flax determines a trace: rules for logical axes, and flags."""
    flags = (config.flax_fix_rng_separator, config.flax_preserve_adopted_names)
    return nn.get_logical_axis_rules(), flags


def is_intercepted() -> bool:
    """Whether `nn.intercept_methods` is in force."""
    return len(linen_module._global_interceptor_stack) > 0


def partition_spec(box: Any) -> jax.sharding.PartitionSpec | None:
    """What a box says of the axes of a mesh, by the rules of the box or in force.

    Without rules, logical names stay as they are. None is of a box of another kind.
    """
    if not hasattr(box, "get_partition_spec"):
        return None
    spec: jax.sharding.PartitionSpec = box.get_partition_spec()
    rules = getattr(box, "rules", None) or nn.get_logical_axis_rules()
    if isinstance(box, nn.LogicallyPartitioned) and rules:
        spec = spmd.logical_to_mesh(spec, rules)
    return spec


def title(module: nn.Module) -> str:
    """The name of the class of `module`, or of the NNX class that it stands for."""
    nnx, cls = _nnx(), type(module)
    if nnx is not None and isinstance(module, nnx.bridge.ToLinen):
        return str(getattr(module.nnx_class, "__name__", cls.__name__))
    return cls.__name__


def describe(module: nn.Module) -> str:
    """`module` in one line: its class, and the fields that are not as by default."""
    return _text.short(module, _knows)


def line(title: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The line `title(*args, **kwargs)`, with modules described as by `describe`."""
    return _text.call(_text.Built(title, args, kwargs), _knows)


def built(module: nn.Module) -> _text.Built:
    """How a linen module was built: the arguments that are not as by default."""
    nnx = _nnx()
    if nnx is not None and isinstance(module, nnx.bridge.ToLinen):
        return _text.Built(title(module), tuple(module.args), module.kwargs)
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(module):
        if not field.init or not field.repr or field.name in ("parent", "name"):
            continue
        value = getattr(module, field.name, None)
        if not _text.equal(value, field.default, _knows):
            shown[field.name] = value
    return _text.Built(title(module), (), shown)


def _knows(value: Any) -> _text.Built | None:
    return built(value) if isinstance(value, nn.Module) else None


def specs(
    module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Any]:
    """The shapes and dtypes of all variables that `function` makes at init."""
    shapes: dict[str, Any] = jax.eval_shape(
        lambda: module.init(jax.random.key(0), *args, method=function, **kwargs)
    )
    return shapes
