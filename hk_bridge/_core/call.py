"""A call of a bridged module, from Haiku's leaves to Haiku's leaves."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import inspect
import itertools
from typing import TYPE_CHECKING
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core import attributes
from hk_bridge._core import guard
from hk_bridge._core import reentry
from hk_bridge._core import share
from hk_bridge._core.apply import Apply
from hk_bridge._core.init import Init
from hk_bridge._core.side import Changes
from hk_bridge._core.side import Options
from hk_bridge._core.side import Variables
from hk_bridge._core.side import owner as owner
from hk_bridge._layout import Where

if TYPE_CHECKING:
    from hk_bridge._core.module import Bridged


def run(
    net: "Bridged",
    method: Callable[..., Any] | str | None,
    args: Any,
    kwargs: Any,
    rngs: Any = None,
    mutable: Any = None,
    capture_intermediates: Any = False,
) -> Any:
    """What `FlaxModule.__call__` does, for methods of Haiku classes that do it, too."""
    options = Options(rngs, mutable, capture_intermediates)
    try:
        with reentry.room_for(net) as room:
            return _run(net, method, options, args, kwargs, room)
    except Exception as error:
        if _flax.lacks_key(error) and rngs is None and _haiku.key_source() is None:
            error.add_note(_errors.note_key(_haiku.running_init()))
        if _flax.lacks_key(error) and net._kind == "nnx" and isinstance(rngs, Mapping):
            error.add_note(_errors.note_rngs(sorted(rngs)))
        if isinstance(error, _OF_SHAPES) and _is_bare_cell(net):
            error.add_note(_errors.note_cell(attributes.wrapper(type(net.module))))
        if isinstance(error, TypeError):
            _explain_names(error, net, method, kwargs)
        if _flax.lacks_mesh(error):
            error.add_note(_errors.note_no_mesh())
        mesh = _flax.explicit_mesh()
        if mesh is not None and _flax.is_about_sharding(error):
            error.add_note(_errors.note_explicit(mesh.axis_sizes, mesh.axis_names))
        for field, value in vars(net._module or net).items():
            if isinstance(value, _haiku.Module):
                error.add_note(_errors.note_field(field, value))
        error.add_note(_errors.note_call(owner(net)))
        raise


# What Python and JAX raise if arguments are in another order.
_OF_SHAPES = (TypeError, ValueError, Warning)


def _is_bare_cell(net: "Bridged") -> bool:
    """Whether `net` is a recurrent cell of Flax, and has not the manners of Haiku's."""
    is_cell = net._kind == "linen" and _flax.is_cell(type(net.module))
    return is_cell and not isinstance(net, _haiku.RNNCore)


def _explain_names(error: TypeError, net: "Bridged", method: Any, kwargs: Any) -> None:
    """Adds to an error what arguments that Haiku has by other names are called."""
    if net._unbuilt is not None and net._module is None:
        names = inspect.signature(net._unbuilt.cls.__init__).parameters
        guard.explain(error, net._unbuilt.kwargs, names)
    elif kwargs:
        with contextlib.suppress(Exception):  # of what cannot be called at all
            function = _flax.resolve(net.module, method)
            guard.explain(error, kwargs, inspect.signature(function).parameters)


def _run(
    net: "Bridged", method: Any, options: Options, args: Any, kwargs: Any, room: Any
) -> Any:
    initializing = _haiku.running_init()
    streams = net._streams(options.rngs)
    function = _flax.resolve(net._build(streams, options.rngs), method)
    plan = _flax.Plan(
        *(net.module, function, False, options.capture, net._keep_rngs, net._memory)
    )
    made = _made_by_flax(net, plan, args, kwargs)
    ledger = _haiku.Ledger(net, net._others, made)
    side: Any = (Init if initializing else Apply)(net, ledger, options, streams)
    room.side = side
    plan = plan._replace(mutable=side.mutable)
    with _haiku.haiku_inside(net, ledger.name):
        outcome = _attempt(plan, side, args, kwargs)
        if side.settle(outcome):
            outcome = _flax.run(plan, side.after(outcome), side, args, kwargs)
            side.settle_again(outcome)
    _haiku.announce(net, ledger.name)
    asked = options.asked
    if asked is None or asked is False:
        return outcome.output
    return outcome.output, outcome.mutated(asked)


def _attempt(plan: _flax.Plan, side: Any, args: Any, kwargs: Any) -> _flax.Outcome:
    """Runs the module. Before an error, what it made and wrote is kept, as in Haiku."""
    try:
        return share.run(plan, side.variables(), side, args, kwargs)
    except Exception as error:
        found = _fetched(error, plan, side, args, kwargs)
        if not found:
            side.keep()
            raise
    variables = _layout.insert(side.variables(), found)
    return share.run(plan, variables, side, args, kwargs)


def _fetched(
    error: Exception, plan: _flax.Plan, side: Any, args: Any, kwargs: Any
) -> Changes:
    """What creators and getters alone give for the inside of lifted transforms.

    There Haiku cannot be asked; so if a parameter is missing while a creator is in
    force, all of them are looked up, and the module runs again."""
    missing = _flax.lacks_param(error) and _haiku.has_creators()
    if side.initializing or not missing:
        return {}
    specs = _specs(plan, args, kwargs)
    fetched: Changes = side.fetched(specs)
    return fetched


def variables(net: "Bridged") -> Variables:
    """The variables of `net` as they stand."""
    made = net._made if _has_code_of_its_own(type(net)) else None
    ledger = _haiku.Ledger(net, net._others, made)
    found = ledger.variables()
    ledger.read_rest(found)
    if not found and net._made is None and _haiku.running_init():
        raise _errors.not_initialized(owner(net))
    return found


def _has_code_of_its_own(cls: type) -> bool:
    """Whether a user's subclass has methods, which may make leaves of their own."""
    users = itertools.takewhile(lambda c: "_of_bridge" not in vars(c), cls.__mro__)
    own = {name for c in users for name, x in vars(c).items() if inspect.isroutine(x)}
    return not own <= vars(_haiku.Empty).keys()


def _made_by_flax(
    net: "Bridged", plan: _flax.Plan, args: Any, kwargs: Any
) -> set[Where] | None:
    """The leaves that the Flax module makes; None where no others have its name.

    After init that is learned by shapes alone."""
    if not _has_code_of_its_own(type(net)):
        return None
    if _haiku.running_init():
        return net._made or set()
    try:
        specs = _specs(plan, args, kwargs)
    except Exception:
        return net._made  # the call itself will say what is wrong
    made = {where for where, _ in _layout.leaves(specs)}
    net._made = (net._made or set()) | made
    return net._made


def _specs(plan: _flax.Plan, args: Any, kwargs: Any) -> Variables:
    """The shapes of all variables."""
    with _haiku.shapes_alone():
        specs: Variables = _flax.specs(plan, args, kwargs)
    return specs
