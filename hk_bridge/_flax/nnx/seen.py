"""What hooks of Haiku see of NNX submodules, and what modules sow.

Private in NNX (since flax 0.12.6): the attribute `__captures__`, which `sow` and
`perturb` look for. Without it they write into the module, which is seen, too, and warn.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import inspect
import threading
from typing import Any
import weakref

from flax import nnx

from hk_bridge._flax.host import Host
from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import told
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import in_filter
from hk_bridge._layout import Where
from hk_bridge._layout import names
from hk_bridge._layout import states

Capture = bool | Callable[[Any, str], bool]


_captured = threading.local()  # what is captured where the version cannot sow it


@contextlib.contextmanager
def watched(module: Any, host: Host, capture: Capture) -> Iterator[None]:
    """Has the host run the methods of submodules, and what they return captured."""
    if not (host.observes or capture):
        yield
        return

    def watch(path: names.Path, part: Any, name: str, run: Any, *call: Any) -> Any:
        if host.observes and path:
            output = host.observe(path, part, name, run, *call)
        else:
            output = run(*call[0], **call[1])
        wanted = (
            name == "__call__" if isinstance(capture, bool) else capture(part, name)
        )
        if capture and wanted:
            _keep_output(part, path, name, output)
        return output

    _captured.outputs = {}
    with told.telling(module, watch, with_paths=True):
        yield


def _keep_output(module: Any, path: names.Path, name: str, output: Any) -> None:
    if _CAPTURES:
        module.sow(nnx.Intermediate, name, output)
        return
    # `sow` sets an attribute, which a method would be.
    where = states.where_of(_INTERMEDIATES, (*path, name))
    before = _captured.outputs.get(where, ())
    _captured.outputs[where] = (*before, output)


_INTERMEDIATES = "intermediates"


def passing(there: Mapping[Where, Any]) -> dict[Where, Any]:
    """What a call begins with of what modules sow and perturb.

    Where the version does not capture that, it is attributes of the modules."""
    collections = {where.collection for where in there} if _CAPTURES else ()
    sown = {c for c in collections if graph.is_transient(states.type_of(c))}
    return {where: value for where, value in there.items() if where.collection in sown}


@contextlib.contextmanager
def sowing(
    plan: Plan, bound: graph.Bound, begins: Mapping[Where, Any]
) -> Iterator[list[tuple[Where, Any]]]:
    """Has the modules that sow do so for the caller alone: what they sowed, in the end.

    As `nnx.capture` does, where the version has it; but that marks every module, lists
    too, and takes as long as a small model. So it is done here, to those whose code
    speaks of sowing; to all, if the caller wants what is sown: functions outside of
    the class may sow, too. What is sown into a Variable that a module has is written
    into that, as it is without `nnx.capture`. It begins with `begins`."""
    sown: list[tuple[Where, Any]] = []
    speaking = {cls for cls in bound.graph.types if _speaks_of_sowing(cls)}
    types = _types(plan.mutable, bound.graph)
    wanted = nnx.Intermediate in types or bool(begins)
    if not _CAPTURES or not (wanted or plan.capture or speaking):
        yield sown
        if plan.capture and not _CAPTURES:
            sown.extend(_captured.outputs.items())
        return
    marked: list[tuple[names.Path, Any, dict[type, Any]]] = []
    for path, part in nnx.iter_modules(bound.module):
        if wanted or type(part) in speaking or told.tells(part):
            held = _variables_of(part)
            given = _below(path, begins)
            every = dict.fromkeys([*types, *held, *given])
            captures = [
                cls({**held.get(cls, {}), **given.get(cls, {})}) for cls in every
            ]
            module: Any = part
            module.__captures__ = nnx.data(tuple(captures))
            marked.append((path, module, held))
    yield sown
    for path, part, held in marked:
        captured: Any = part.__captures__
        del part.__captures__
        for variable in captured:
            cls = type(variable)
            fresh = _take(variable.get_raw_value(), part, held.get(cls, {}))
            if cls in types:
                collection = states.collection_of(cls)
                for name, value in fresh.items():
                    sown.append((states.where_of(collection, (*path, name)), value))


_CAPTURES = hasattr(nnx, "capture")


def _below(path: names.Path, begins: Mapping[Where, Any]) -> dict[type, dict[str, Any]]:
    """What of `begins` is of the module at `path`, by type."""
    found: dict[type, dict[str, Any]] = {}
    for where, value in begins.items():
        *parent, name = where.path
        if states.where_of(where.collection, path).path == tuple(parent):
            cls = states.type_of(where.collection)
            found.setdefault(cls, {})[str(name)] = value
    return found


def _variables_of(part: Any) -> dict[type, dict[str, Any]]:
    """What the Variables hold that a module has itself and may sow into, by type."""
    found: dict[type, dict[str, Any]] = {}
    for name, value in vars(part).items():
        if isinstance(value, nnx.Variable) and not isinstance(value, _NEVER_SOWN):
            found.setdefault(type(value), {})[name] = value.get_raw_value()
    return found


_NEVER_SOWN = (nnx.Param, nnx.RngState)


def _take(values: dict[str, Any], part: Any, held: dict[str, Any]) -> dict[str, Any]:
    """Gives the Variables of a module what was sown into them; what else was sown."""
    for name, before in held.items():
        if values[name] is not before:
            vars(part)[name].set_raw_value(values[name])
    return {name: value for name, value in values.items() if name not in held}


def _types(mutable: Any, found: graph.Graph) -> tuple[Any, ...]:
    """The types of what is sown into the collections that may change."""
    named = [mutable] if isinstance(mutable, str) else mutable
    types = [nnx.Intermediate, nnx.Perturbation]
    if isinstance(named, (list, tuple, set, frozenset)):
        kept = {leaf.where.collection for leaf in found.kept if leaf.where}
        types += [states.type_of(name) for name in sorted({*named} - kept)]
    wanted = [t for t in types if in_filter(mutable, states.collection_of(t))]
    return tuple(dict.fromkeys(wanted))


_speaks: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def _speaks_of_sowing(cls: type) -> bool:
    """Whether the code of a class speaks of sowing."""
    if cls not in _speaks:
        codes = [method.__code__ for method in _functions(cls)]
        _speaks[cls] = any(map(_names_sowing, codes))
    return _speaks[cls]


def _functions(cls: type) -> list[Any]:
    """The functions of a class and its bases, but for NNX's own."""
    bases = [base for base in cls.__mro__ if base not in nnx.Module.__mro__]
    found = [value for base in bases for value in vars(base).values()]
    return [inspect.unwrap(value) for value in found if inspect.isfunction(value)]


def _names_sowing(part: Any) -> bool:
    """Whether code, or a constant of it, has a name that speaks of sowing."""
    if isinstance(part, str):
        return "sow" in part or "perturb" in part
    if isinstance(part, tuple):
        return any(map(_names_sowing, part))
    if not hasattr(part, "co_names"):
        return False
    return _names_sowing((*part.co_names, *part.co_varnames, *part.co_consts))
