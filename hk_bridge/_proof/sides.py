"""One module on two sides, native Flax and bridged, run and traced alike.

Both sides are functions from Flax variables to Flax variables, so that the other can be
asked whatever one is.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any
from typing import NamedTuple
from typing import Protocol

import jax

from hk_bridge import _abstract
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._proof import graph
from hk_bridge._proof import program
from hk_bridge._proof.floats import floats
from hk_bridge._proof.floats import total

Tree = Any
Rngs = Mapping[str, Any]
# What JAX raises for code that wants the value of an array, and not its shape.
_WANTS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerArrayConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


class Inputs(NamedTuple):
    """What one call is given besides variables."""

    rngs: Rngs
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class Side(Protocol):
    """A module on one side: pure functions over Flax variables, without boxes."""

    def init(self, inputs: Inputs) -> Tree:
        """The variables that the module starts with, less those that are sown."""

    def apply(self, inputs: Inputs, variables: Tree) -> tuple[Tree, Tree]:
        """The output, and the variables after the call."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """One module, natively and bridged, and how to call it.

    Attributes:
      module: the linen module, or the NNX instance.
      build: builds the bridged module, inside a transform.
      name: the full Haiku name of that.
      args: positional inputs.
      kwargs: keyword inputs.
      method: what to call.
      init_rngs: keys at init.
      rngs: keys in a call, by the number of the step.
      sown: collections that live for one call.
      given: variables in place of the initial ones, a part or all.
      keep_rngs: of an NNX module, whether its streams are state like other.
      boxes: those that the linen module made at init, without what they hold.
    """

    module: Any
    build: Callable[[], Any]
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    method: Any
    init_rngs: Rngs
    rngs: Callable[[int], Rngs]
    sown: frozenset[str] = frozenset()
    given: _layout.Variables | None = None
    keep_rngs: bool = False
    boxes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def native(self) -> Side:
        """The side of Flax."""
        if not graph.is_graph(self.module):
            return _Native(self)
        options = (self.method, self.sown, self.given, self.keep_rngs)
        return graph.Graph(self.module, *options)

    @property
    def bridged(self) -> "Bridged":
        """The side of Haiku."""
        return Bridged(self)

    @property
    def at_init(self) -> Inputs:
        """What init is given."""
        return Inputs(self.init_rngs, self.args, self.kwargs)

    def at_step(self, step: int) -> Inputs:
        """What a call is given, by the number of the step."""
        return Inputs(self.rngs(step), self.args, self.kwargs)

    @functools.cached_property
    def start(self) -> Tree:
        """The variables that the native module starts with."""
        return self.native.init(self.at_init)

    @functools.cached_property
    def spec(self) -> Tree:
        """The same by shape and dtype, where nothing has to be computed for it."""
        return _abstract.evaluate(lambda: self.native.init(self.at_init))

    @functools.cached_property
    def haiku_spec(self) -> tuple[Tree, Tree]:
        """`haiku_start` by shape and dtype."""
        spec: tuple[Tree, Tree]
        spec = _abstract.evaluate(lambda: self.bridged.haiku_init(self.at_init))
        return spec

    @functools.cached_property
    def haiku_start(self) -> tuple[Tree, Tree]:
        """The params and the state that the bridged module starts with."""
        return self.bridged.haiku_init(self.at_init)


class _Native:
    """The linen module by itself."""

    def __init__(self, pair: Pair):
        self._pair = pair

    def init(self, inputs: Inputs) -> Tree:
        pair, (rngs, args, kwargs) = self._pair, inputs
        made = pair.module.init(dict(rngs), *args, method=pair.method, **kwargs)
        kept = {c: tree for c, tree in made.items() if c not in pair.sown}
        pair.boxes.update(_layout.boxes_of(kept))
        given = dict(_layout.leaves(pair.given or {}))
        return _layout.replace(_opened(kept), given)

    def apply(self, inputs: Inputs, variables: Tree) -> tuple[Tree, Tree]:
        pair, (rngs, args, kwargs) = self._pair, inputs
        mutable = [c for c in variables if c != _layout.PARAMS]
        output, mutated = pair.module.apply(
            _layout.rebox(variables, pair.boxes),
            *args,
            rngs=dict(rngs),
            mutable=mutable,
            method=pair.method,
            **kwargs,
        )
        return output, {**variables, **_opened(mutated)}


def _opened(tree: Tree) -> Tree:
    """`tree` without boxes. Flax's own `unbox` adds constraints where a mesh is set."""
    return jax.tree.map(
        lambda leaf: _opened(_layout.open_box(leaf)) if _layout.is_box(leaf) else leaf,
        tree,
        is_leaf=_layout.is_box,
    )


class Bridged:
    """The module in a Haiku transform."""

    def __init__(self, pair: Pair):
        self._pair = pair

        def forward(rngs: Rngs, args: Any, kwargs: Any) -> Any:
            return pair.build()(*args, rngs=rngs, method=pair.method, **kwargs)

        self._transformed = _haiku.native.transform_with_state(forward)

    def init(self, inputs: Inputs) -> Tree:
        return self.to_flax(*self.haiku_init(inputs))

    def apply(self, inputs: Inputs, variables: Tree) -> tuple[Tree, Tree]:
        params, state = _layout.bundles(variables, name=self._pair.name)
        output, state = self.haiku_apply(inputs, params, state)
        return output, self.to_flax(params, state)

    def haiku_init(self, inputs: Inputs) -> tuple[Tree, Tree]:
        """Haiku's params and state at the start."""
        start: tuple[Tree, Tree]
        start = self._transformed.init(None, dict(inputs.rngs), *inputs[1:])
        return start

    def haiku_apply(
        self, inputs: Inputs, params: Tree, state: Tree
    ) -> tuple[Tree, Tree]:
        """The output, and Haiku's state after the call."""
        done: tuple[Tree, Tree]
        done = self._transformed.apply(
            params, state, None, dict(inputs.rngs), *inputs[1:]
        )
        return done

    def to_flax(self, params: Tree, state: Tree) -> Tree:
        """The variables that Haiku holds, which are to be all that it holds."""
        name = self._pair.name
        variables = _layout.variables_of(params, state, name=name)
        own = _layout.bundles(variables, name=name)
        whole = {"params": params, "state": state}
        for (which, held), tree in zip(whole.items(), own, strict=True):
            extra = ", ".join(sorted(_addresses(held) - _addresses(tree)))
            assert not extra, f"Haiku {which} holds what is no variable: {extra}"
        return variables


def _addresses(bundles: Tree) -> set[str]:
    return {f"{name}/{leaf}" for name, bundle in bundles.items() for leaf in bundle}


class NotInFlax(Exception):
    """Why Flax itself gives nothing that could be compared."""


def natively(run: Callable[..., Any], *args: Any) -> Any:
    """`run(*args)` on the side of Flax, any error being the reason of a `NotInFlax`."""
    try:
        return run(*args)
    except NotInFlax:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise NotInFlax(f"Flax raises {type(error).__name__}: {reason}") from error


def grad(side: Side, inputs: Inputs, variables: Tree) -> list[Any]:
    """The gradients of `total` of the output by the parameters that are floats."""
    params = variables.get(_layout.PARAMS, {})

    def loss(by: Tree) -> jax.Array:
        full = {**variables, _layout.PARAMS: _abstract.filled(by, params)}
        output, _ = side.apply(inputs, full)
        if not jax.tree.leaves(floats(output)):
            raise NotInFlax("no outputs are floats")
        return total(output)

    if not jax.tree.leaves(floats(params)):
        raise NotInFlax("no parameters are floats")
    return jax.tree.leaves(jax.grad(loss)(floats(params)))


# Programs.


@dataclasses.dataclass(frozen=True)
class Programs:
    """What one function of a `Side` traces to, on both sides."""

    ours: _abstract.Traced
    theirs: _abstract.Traced

    def difference(self) -> str | None:
        """How they differ, in words, or None."""
        ours, theirs = self.ours.output, self.theirs.output
        if not _abstract.are_equal(ours, theirs):
            return f"the outputs are {ours} in Haiku, {theirs} in Flax"
        programs = self.ours.program, self.theirs.program
        return program.difference(*programs, outputs=self.theirs.path)


def programs(
    pair: Pair, run: Callable[..., Any], inputs: Inputs, *trees: Any
) -> Programs:
    """The programs of `run(side, inputs, *trees)`, whose inputs are all arrays there.

    Where the native module asks for the values of its arguments, to branch on them,
    these are constants of both programs. Raises `NotInFlax` if it cannot be traced.
    """
    given = inputs

    def fixed(side: Side, rngs: Rngs, *trees: Any) -> Any:
        return run(side, given._replace(rngs=rngs), *trees)

    def traced(run: Callable[..., Any], side: Side, *trees: Any) -> _abstract.Traced:
        return _abstract.trace(functools.partial(run, side), *trees)

    try:
        theirs = natively(traced, run, pair.native, inputs, *trees)
    except NotInFlax as why:
        if not isinstance(why.__cause__, _WANTS_VALUES):
            raise
        theirs = natively(traced, fixed, pair.native, given.rngs, *trees)
        ours = traced(fixed, pair.bridged, given.rngs, *trees)
    else:
        ours = traced(run, pair.bridged, inputs, *trees)
    return Programs(ours, theirs)
