"""Of which kind a module is, linen or NNX, and what is asked of either.

`hk_bridge._flax.nnx` imports `flax.nnx`, which takes long: only for who has a module of
NNX at hand, and so has imported it.
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import importlib
import sys
from typing import Any

import jax

from hk_bridge._flax import inner
from hk_bridge._flax import modules
from hk_bridge._flax import run as linen
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.keys import LinenStreams
from hk_bridge._flax.keys import Streams
from hk_bridge._flax.modules import is_nnx_class
from hk_bridge._flax.plan import Outcome
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import Sharing


def is_nnx(module: Any) -> bool:
    """Whether `module` is an instance of an NNX module class."""
    return is_nnx_class(type(module))


def is_of_graph(value: Any) -> bool:
    """Whether `value` is a Variable of NNX, or something that may have some."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return False
    of_nnx: Callable[[Any], bool]
    of_nnx = lambda x: isinstance(x, (nnx.Variable, nnx.Pytree))
    if not isinstance(value, (list, tuple, dict)):
        return of_nnx(value)
    return any(map(of_nnx, jax.tree.leaves(value, is_leaf=of_nnx)))


def guarded(value: Any) -> Any:
    """A part of a copy of an NNX module, whose Variables refuse to be written."""
    return _nnx().guarded(value)


def _nnx() -> Any:
    """`hk_bridge._flax.nnx`."""
    name = f"{__package__}.nnx"
    return sys.modules.get(name) or importlib.import_module(name)


def unbound(module: Any) -> tuple[Any, Mapping[str, Any] | None]:
    """`module` free of any scope, and the variables that it was bound to, if it was.

    Of NNX that is the module itself.

    Raises:
      ModuleTypeError: `module` is no module instance, or has a Flax parent.
    """
    return (module, None) if is_nnx(module) else modules.unbound(module)


def resolve(module: Any, method: Any) -> Callable[..., Any]:
    """`method` as `module.apply` takes it, as a function of a bound module."""
    door: Any = _nnx() if is_nnx(module) else modules
    function: Callable[..., Any] = door.resolve(module, method)
    return function


def nnx_specs(module: Any) -> dict[str, Any]:
    """The shapes and dtypes of the Variables of an NNX instance, without its keys."""
    found: dict[str, Any] = _nnx().specs(module, False)
    return found


def specs(plan: Plan, args: Any, kwargs: Any) -> dict[str, Any]:
    """The shapes and dtypes of all variables that the function of `plan` makes."""
    found: dict[str, Any]
    if is_nnx(plan.module):
        found = _nnx().specs(plan.module, plan.keep_rngs)
    else:
        found = modules.specs(plan.module, plan.function, args, kwargs)
    return found


def annotated(module: Any, variables: dict[str, Any]) -> dict[str, Any]:
    """`variables` as init made them, in the boxes that say how they are sharded."""
    if not is_nnx(module):
        return variables
    boxed: dict[str, Any] = _nnx().annotated(module, variables)
    return boxed


def parts(plan: Plan) -> tuple[Any, ...]:
    """The parts of `plan`, for a key: of an NNX module its graph, without values."""
    module = plan.module
    if is_nnx(module):
        module = _nnx().remembered(module, plan.keep_rngs, plan.memory).parts
    return (module, plan.function, plan.mutable, plan.capture, plan.keep_rngs)


def streams(
    module: Any, rngs: Any, draw: Callable[[], jax.Array] | None, initializing: bool
) -> Streams:
    """The keys of one call of `module`, an instance or, of NNX, a class."""
    made: Streams
    if is_nnx(module) or is_nnx_class(module):
        made = _nnx().NnxStreams(rngs, draw, initializing)
    else:
        made = LinenStreams(module, rngs, draw, initializing)
    return made


def build_nnx(cls: Any, args: Any, kwargs: Any, keys: Streams, given: bool) -> Any:
    """The module of an NNX class, with values made with `keys`."""
    return _nnx().build(cls, args, kwargs, keys, given)


def outline_nnx(cls: Any, args: Any, kwargs: Any, *more: Any) -> Any:
    """The module of an NNX class, by shapes alone; its graph is remembered."""
    return _nnx().outline(cls, args, kwargs, *more)


def apply(plan: Plan, variables: Any, args: Any, kwargs: Any, rngs: Any) -> Any:
    """What the function of `plan` gives, as `nn.Module.apply` does, without Haiku."""
    if is_nnx(plan.module):
        return _nnx().apply(plan, variables, args, kwargs, rngs)
    return plan.module.apply(
        variables,
        *args,
        rngs=rngs,
        method=plan.function,
        mutable=plan.mutable,
        **kwargs,
    )


def sharing(module: Any, asked: Sharing) -> contextlib.AbstractContextManager[None]:
    """Has the calls of submodules of `module`, which runs next, shared as is asked."""
    door: Any = _nnx() if is_nnx(module) else inner
    context: contextlib.AbstractContextManager[None] = door.sharing(asked)
    return context


def run(
    plan: Plan,
    variables: dict[str, Any],
    host: Host,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    begin: Callable[[dict[str, Any], Record], None] = lambda variables, record: None,
) -> Outcome:
    """Runs the function of `plan` bound to `variables`, which change in place.

    Args:
      begin: is told, before anything runs, where variables and what happened will be.
    """
    door: Any = _nnx() if is_nnx(plan.module) else linen
    outcome: Outcome = door.run(plan, variables, host, args, kwargs, begin)
    return outcome
