"""Loads a test file of the installed Haiku with names of ours in place of its own."""

import builtins
from collections.abc import Mapping
from concurrent import futures
import functools
import importlib
import importlib.util
import pathlib
import types
from typing import Any
import unittest

import haiku

FOLDER = pathlib.Path(haiku.__file__).parent / "_src"


class Namespace(types.ModuleType):
    """A module with some names replaced; all others are those of the real one."""

    def __init__(self, real: types.ModuleType, **replaced: Any):
        super().__init__(real.__name__, real.__doc__)
        self.__dict__.update(replaced, _real=real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def load(name: str, replaced: Mapping[str, Any]) -> types.ModuleType:
    """A test module of Haiku, whose imports are answered by `replaced` where it can.

    The file is executed anew, with an `__import__` of its own. So neither `sys.modules`
    nor any module of Haiku changes, and the same file can be loaded several times.

    Args:
      name: of the file below `haiku/_src`, as `integration.half_test`.
      replaced: what the file gets for a module, by the module's full name.

    Returns:
      The new module. It is in `sys.modules` under no name.
    """
    full_name = f"haiku._src.{name}"
    spec = importlib.util.find_spec(full_name)
    module = types.ModuleType(full_name)
    module.__file__ = spec.origin
    answer = functools.partial(_import, replaced)
    module.__builtins__ = {**vars(builtins), "__import__": answer}
    source = pathlib.Path(spec.origin).read_text()
    exec(compile(source, spec.origin, "exec"), vars(module))
    return module


def _import(replaced, name, globals=None, locals=None, fromlist=(), level=0):
    """The `import` statement of a loaded file."""
    if not fromlist:
        if name in replaced:
            return replaced[name]
        return builtins.__import__(name, globals, locals, fromlist, level)
    found = {}
    for attribute in fromlist:
        full_name = f"{name}.{attribute}"
        if full_name in replaced:
            found[attribute] = replaced[full_name]
        else:
            real = builtins.__import__(name, globals, locals, (attribute,), level)
            found[attribute] = getattr(real, attribute)
    return types.SimpleNamespace(**found)


def tests(module: types.ModuleType) -> list[tuple[type[unittest.TestCase], str]]:
    """The test methods of a loaded module, sorted."""
    classes = {
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, unittest.TestCase)
        and value.__module__ == module.__name__
    }
    names = unittest.defaultTestLoader.getTestCaseNames
    return [
        (cls, name)
        for cls in sorted(classes, key=lambda cls: cls.__name__)
        for name in names(cls)
    ]


class Skipped(Exception):
    """The test skips itself."""


def run(cls: type[unittest.TestCase], name: str) -> None:
    """Runs one test method, in a thread of its own.

    Haiku keeps policies and interceptors by thread, and some tests leave theirs behind.

    Raises:
      Skipped: the test skips itself.
      AssertionError: it fails; the text is the traceback.
    """
    result = unittest.TestResult()
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(cls(name).run, result).result()
    problems = [*result.errors, *result.failures]
    if problems:
        raise AssertionError("\n".join(text for _, text in problems))
    if result.skipped:
        raise Skipped(result.skipped[0][1])
