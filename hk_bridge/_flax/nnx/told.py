"""Objects of NNX that tell of their methods.

NNX has no interceptors. So where somebody watches, the objects of the copy that runs
are of subclasses of their classes, which tell of each method.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import inspect
import threading
from typing import Any
import weakref

from flax import nnx

from hk_bridge._layout import names

# Runs a method of a part: its path, itself, the name of the method, a function that
# runs it, and that one's arguments.
Watch = Callable[..., Any]


class _Watching(threading.local):
    """Who watches in this thread."""

    now: Watch | None = None


_watching = _Watching()


@contextlib.contextmanager
def telling(
    module: Any, watch: Watch, *, with_paths: bool
) -> Iterator[dict[int, names.Path]]:
    """Has `watch` run the methods of `module` and of the modules in it.

    Args:
      with_paths: whether `watch` gets the paths, also inside of transforms of NNX,
        where the objects are others. Else it gets (), and there is one class a class.

    Returns:
      A context manager, which gives the paths by the ids of the objects.
    """
    classes, paths = [], {}
    for path, part in list(nnx.iter_modules(module)):
        if isinstance(part, (nnx.List, nnx.Dict)):
            continue  # has no methods of its own
        classes.append((part, type(part)))
        paths[id(part)] = path
        own = original(type(part))
        _set_class(part, _told_of(own, path if with_paths else ()))
    before, _watching.now = _watching.now, watch
    try:
        yield paths
    finally:
        _watching.now = before
        for part, cls in classes:
            _set_class(part, cls)


def _set_class(part: Any, cls: type) -> None:
    object.__setattr__(part, "__class__", cls)


def tells(part: Any) -> bool:
    """Whether an object tells of its methods."""
    return isinstance(part, _Telling)


def original(cls: type) -> type:
    """The class of which `cls` is the one that tells."""
    return cls.__mro__[2] if issubclass(cls, _Telling) else cls


def untold(part: Any, name: str) -> Callable[..., Any]:
    """The method of an object that tells, as its class has it now."""
    method: Callable[..., Any] = getattr(super(type(part), part), name)
    return method


_classes: weakref.WeakKeyDictionary[type, dict[names.Path, type]]
_classes = weakref.WeakKeyDictionary()


class _Telling:
    """A class of which the methods tell of themselves."""

    __slots__ = ()  # so that an object can become one of it

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Does what NNX does, and nothing that the user does to each class."""
        base: Any = nnx.Module.__init_subclass__
        base.__func__(cls, pytree=getattr(cls, "_pytree__is_pytree", True))


@functools.cache
def _telling_kind(kind: Any) -> Any:
    """The metaclass `kind`, of classes to which `_Telling` comes before their bases."""

    class Telling(kind):  # type: ignore[misc]
        def mro(cls) -> list[type]:
            own, *bases = super().mro()
            return [own, _Telling, *bases]

    return Telling


def _told_of(cls: type, path: names.Path) -> type:
    """`cls`, with methods that tell of themselves, for the submodule at `path`."""
    known = _classes.setdefault(cls, {})
    if path not in known:
        methods = {
            name: _telling(path, name, value) for name, value in _methods(cls).items()
        }
        shown = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
        made = _telling_kind(type(cls))
        known[path] = made(cls.__name__, (cls,), {**methods, **shown})
    return known[path]


def _methods(cls: type) -> dict[str, Any]:
    """The public methods of a module class that are not NNX's own."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base not in nnx.Module.__mro__:
            found.update(vars(base))
    return {
        name: value
        for name, value in found.items()
        if inspect.isfunction(value) and (name == "__call__" or name[0] != "_")
    }


def _telling(path: names.Path, name: str, method: Callable[..., Any]) -> Any:
    @functools.wraps(method)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = untold(self, name)
        if _watching.now is None:
            return run(*args, **kwargs)
        return _watching.now(path, self, name, run, args, kwargs)

    return told
