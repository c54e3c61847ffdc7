"""The layers of a network in the order of their calls, seen from outside."""

from collections.abc import Iterator
import dataclasses
import math
import re
from typing import Any
from typing import NamedTuple

import jax

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core.module import Bridged
from hk_bridge._layout import Where
from hk_bridge.migrate._twins.rows import family

_linen, _hk = _flax.linen, _haiku.native


class Address(NamedTuple):
    """Where in Haiku a leaf is."""

    is_state: bool
    module: str
    name: str

    def __str__(self) -> str:
        which = "state" if self.is_state else "params"
        return f"{which}[{self.module!r}][{self.name!r}]"


@dataclasses.dataclass(eq=False)
class Layer:
    """A module that has leaves, in the order of first calls.

    Attributes:
      module: the Haiku module, or the linen module.
      kind: what its leaves depend on: the Haiku layer that it is or that is its twin,
        else its class.
      name: where it is: its Haiku name, or that of the Flax submodule.
      net: of a Flax module: the Haiku name of the bridged one; `path` leads to it.
      label: the parts of its name that somebody chose, and no class or count gave.
      built: its attributes before its first call, if it is a Haiku module.
      ndim: how many axes its first input has.
      leaves: where its leaves are, by the names that they have below it.
      stacked: how many layers its leaves are of, along each first axis, in a
        `hk.layer_stack`.
    """

    module: Any
    kind: Any
    name: str
    net: str | None = None
    path: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    built: dict[str, Any] = dataclasses.field(default_factory=dict)
    ndim: int | None = None
    is_known: bool = False
    leaves: dict[Any, Address] = dataclasses.field(default_factory=dict)
    size: int = 0
    stacked: tuple[int, ...] = ()

    @property
    def is_flax(self) -> bool:
        return self.net is not None


class Recorded(NamedTuple):
    """A network: its layers, and shape and dtype of each of its leaves."""

    layers: list[Layer]
    specs: dict[Address, Any]
    transformed: Any
    args: Any
    kwargs: Any
    is_stateful: bool


def record(network: Any, args: Any, kwargs: Any) -> Recorded:
    """The layers and leaves that `init` makes. Nothing is computed."""
    if not callable(getattr(network, "init", None)):
        raise _errors.no_network(network)
    watch = Watch()
    with _hk.intercept_methods(watch.haiku), _linen.intercept_methods(watch.flax):
        made = _abstract.evaluate(network.init, jax.random.key(0), *args, **kwargs)
    is_stateful = isinstance(made, tuple)
    params, state = made if is_stateful else (made, {})
    specs = {
        Address(bool(i), module, name): leaf
        for i, bundles in enumerate((params, state))
        for module, bundle in bundles.items()
        for name, leaf in bundle.items()
    }
    for layer in watch.layers:
        layer.leaves = dict(_leaves_of(layer, params, state, specs))
        own = [specs[a] for a in layer.leaves.values() if not a.is_state]
        layer.size = sum(math.prod(x.shape) for x in jax.tree.leaves(own))
        for address in layer.leaves.values():
            if address in watch.ranks:
                shape = specs[address].shape
                layer.stacked = shape[: len(shape) - watch.ranks[address]]
    layers = [layer for layer in watch.layers if layer.leaves]
    return Recorded(layers, specs, network, args, kwargs, is_stateful)


class Watch:
    """Notes each module at its first call."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self._seen: set[Any] = set()
        self._chosen: dict[str, str] = {}  # of Haiku modules that run, by full name
        self._inside: list[str] = []  # the bridged modules that run, by full name
        self.ranks: dict[Address, int] = {}  # of leaves, in a lifted transform
        self._depth = 0  # how many transforms run, with this one
        self._known = 0  # how many layers with a twin run around this call

    def prefix(self) -> str | None:
        """What names here have before them; None if they are not of the network."""
        self._depth = self._depth or _haiku.transforms()
        if _haiku.transforms() == self._depth:
            return ""
        return _haiku.lift_prefix() or None

    def haiku(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        # A lifted module that is being built has no prefix yet.
        prefix = None if context.method_name in _NO_CALLS else self.prefix()
        if prefix is None:
            return run(*args, **kwargs)
        module = context.module
        name = f"{prefix}{module.module_name}"
        title = module._title if isinstance(module, Bridged) else type(module).__name__
        if counted(module.name) != _haiku.camel_to_snake(title):
            self._chosen[name] = module.name
        output = self._haiku(module, name, run, args, kwargs, context.method_name)
        if _haiku.transforms() != self._depth:
            for i, bundles in enumerate((module.params_dict(), module.state_dict())):
                for full, leaf in bundles.items():
                    own = Address(bool(i), *f"{prefix}{full}".rsplit("/", 1))
                    if _abstract.is_array(leaf):
                        self.ranks[own] = leaf.ndim
        return output

    def _haiku(
        self, module: Any, name: str, run: Any, args: Any, kwargs: Any, method: str
    ) -> Any:
        if isinstance(module, Bridged):
            self._inside.append(name)
            if module._kind == "nnx":
                self._note(Layer(module, module._title, name, name, (), is_known=True))
            try:
                return run(*args, **kwargs)
            finally:
                self._inside.pop()
        if _haiku.is_stand_in(module):
            return run(*args, **kwargs)
        kind = family(module)
        is_layer = kind is not None and method == "__call__"
        layer = Layer(module, kind or type(module), name, is_known=kind is not None)
        return self._run(layer, is_layer, run, args, kwargs)

    def flax(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not self._inside or self.prefix() is None:
            return run(*args, **kwargs)
        module, net = context.module, self._inside[-1]
        kind, path = family(module), tuple(module.path)
        is_layer = kind is not None and context.method_name == "__call__"
        name, _ = _layout.address(net, Where(_layout.PARAMS, (*path, "leaf")))
        own = module.clone(parent=None, name=None)
        layer = Layer(own, kind or type(module), name, net, path)
        layer.is_known = kind is not None
        return self._run(layer, is_layer, run, args, kwargs)

    def _run(self, layer: Layer, is_layer: bool, run: Any, args: Any, kw: Any) -> Any:
        shapes = [x.shape for x in jax.tree.leaves((args, kw)) if hasattr(x, "shape")]
        layer.ndim = len(shapes[0]) if shapes else None
        if not self._known:
            self._note(layer)
        self._known += is_layer
        try:
            return run(*args, **kw)
        finally:
            self._known -= is_layer

    def _note(self, layer: Layer) -> None:
        if (layer.net, layer.name) not in self._seen:
            self._seen.add((layer.net, layer.name))
            layer.label = self._label(layer)
            layer.built = dict(vars(layer.module)) if layer.net is None else {}
            self.layers.append(layer)

    def _label(self, layer: Layer) -> tuple[str, ...]:
        parts = (layer.name if layer.net is None else layer.net).split("/")
        names = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        chosen = [self._chosen[name] for name in names if name in self._chosen]
        return *chosen, *[part for part in layer.path if not _BY_FLAX.match(part)]


_NO_CALLS = {"__init__", "params_dict", "state_dict"}
_BY_FLAX = re.compile(r"[A-Z]\w*_\d+$")  # `Dense_0`


def counted(name: str) -> str:
    """A name without the number that tells it from others.

    >>> counted("linear_1")
    'linear'
    """
    return re.sub(r"_\d+$", "", name)


def _leaves_of(
    layer: Layer, params: Any, state: Any, specs: dict[Address, Any]
) -> Iterator[tuple[Any, Address]]:
    """The leaves of a layer: its own, and of one that is known also those below."""
    if layer.net is None:
        for address in specs:
            below = address.module.removeprefix(layer.name)
            inside = layer.is_known and below.startswith("/")
            if address.module == layer.name or (
                inside and address.module.startswith(layer.name)
            ):
                yield (address.is_state, f"{below}/{address.name}"), address
        return
    depth = len(layer.path)
    variables = _layout.variables_of(params, state, name=layer.net)
    for where, _ in _layout.leaves(variables):
        is_own = len(where.path) == depth + 1 or layer.is_known
        if where.path[:depth] == layer.path and is_own:
            key = "/".join((where.collection, *where.path[depth:]))
            is_state = where.collection != _layout.PARAMS
            yield key, Address(is_state, *_layout.address(layer.net, where))
