"""Writes `hk_bridge/nn.pyi`, which tells type checkers and editors what the layers are.

`python -m tests.stub` after a change of `hk_bridge.nn`, or with a new release of Flax.
"""

import collections.abc
from collections.abc import Iterator
import inspect
import math
import pathlib
import types
import typing
from typing import Any

import flax
import haiku as hk

import hk_bridge

PATH = pathlib.Path(hk_bridge.__file__).parent / "nn.pyi"
VERSION = f"# Of flax {flax.__version__}."
HEAD = f'''"""Types of `hk_bridge.nn`. Made by `python -m tests.stub`."""

{VERSION}

# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, overload

import flax.linen as _linen
import haiku as _hk
import jax as _jax

from hk_bridge._core.module import FlaxModule as _FlaxModule

__all__ = {{names}}

'''
OPTIONS = "rngs: Any = ..., capture_intermediates: Any = ..."
MUTABLE = f"{OPTIONS}, mutable: Collection[str]"
ALL_OPTIONS = f"{OPTIONS}, mutable: Any = ..., method: Any = ..."
# What a call returns. Of these it depends on what they are given; others give an array.
ANYTHING = {"Bidirectional", "RNN", "Sequential", "SpectralNorm", "WeightNorm"}
PLAIN = {int, str, bool, float, type(None)}


def text() -> str:
    """What the file has to be."""
    names = hk_bridge.nn.__all__
    listed = ",\n".join(f"    {name!r}" for name in names).replace("'", '"')
    parts = [HEAD.replace("{names}", f"[\n{listed},\n]")]
    made: dict[Any, str] = {}
    for name in names:
        cls = getattr(hk_bridge.nn, name)
        parts.append(f"{name} = {made[cls]}" if cls in made else layer(name, cls))
        made.setdefault(cls, name)
    return "\n".join(parts)


def layer(name: str, cls: Any) -> str:
    """The lines of one class."""
    is_cell = issubclass(cls, hk.RNNCore)
    bases = "_FlaxModule, _hk.RNNCore" if is_cell else "_FlaxModule"
    linen = f"_linen.{cls.flax_class.__name__}"
    parameters = list(inspect.signature(cls).parameters.values())
    lines = [f"class {name}({bases}):"]
    lines += [f"    {quoted(cls.__doc__)}", f"    flax_class: ClassVar[type[{linen}]]"]
    lines += [
        f"    {p.name}: {field(p)}"
        for p in parameters
        if p.name not in ("name", "variables", "transient")
        and not hasattr(hk.Module, p.name)
    ]
    lines += ["    @property", f"    def module(self) -> {linen}: ..."]
    own = ", ".join(constructed(cls, parameters))
    more = "variables: Mapping[str, Any] | None = ..."
    more += ", transient: str | Collection[str] | None = ..."
    lines.append(f"    def __init__(self, {own}, {more}) -> None:")
    lines.append(f"        {quoted(cls.__init__.__doc__)}")
    if is_cell:
        given, gives = (
            "inputs: Any, prev_state: Any, *args: Any",
            "tuple[_jax.Array, Any]",
        )
        lines += called(given, gives)
        lines.append("    def initial_state(self, batch_size: int | None) -> Any: ...")
    else:
        native = inspect.signature(cls.flax_class.__call__)
        gives = "Any" if name in ANYTHING else "_jax.Array"
        lines += called(arguments(native, cls._guard and cls._guard._called), gives)
    lines += list(methods(cls))
    return "\n".join(lines) + "\n"


def called(given: str, gives: str) -> list[str]:
    """A call that gives its output, or with more keywords something else."""
    *named, last = given.rsplit(", **", 1)
    rest = f", **{last}" if named else ""
    given = named[0] if named else last
    star = "" if "*" in given else ", *"
    call = "    def __call__"
    if gives == "Any" or rest:  # whatever a layer hands on may be an option
        return [f"{call}(self, {given}{star}, {ALL_OPTIONS}{rest}) -> Any: ..."]
    both = f"tuple[{gives}, dict[str, Any]]"
    return [
        "    @overload",
        f"{call}(self, {given}{star}, {OPTIONS}{rest}) -> {gives}: ...",
        "    @overload",
        f"{call}(self, {given}{star}, {MUTABLE}{rest}) -> {both}: ...",
        "    @overload",
        f"{call}(self, {given}{star}, {ALL_OPTIONS}{rest}) -> Any: ...",
    ]


def constructed(cls: Any, parameters: list[Any]) -> Iterator[str]:
    """The arguments of the constructor; those in places of Haiku's others by name."""
    most = places(cls._guard and cls._guard._built)
    star = False
    for at, p in enumerate(parameters):
        if not star and (at >= most or p.kind is p.KEYWORD_ONLY):
            star = True
            yield "*"
        default = "" if p.default is p.empty else " = ..."
        yield f"{p.name}: {field(p)}{default}"


def field(parameter: Any) -> str:
    """The type of a field; `kernel_size` may not be a number here."""
    text = rendered(parameter.annotation)
    if parameter.name == "kernel_size":
        return "Sequence[int]"
    is_init = parameter.name.endswith("_init") and text == "Any"
    return "Callable[..., Any]" if is_init else text


def places(order: Any) -> float:
    """How many arguments may be given without a name."""
    return math.inf if order is None or order._free else order._shared


def arguments(signature: inspect.Signature, order: Any = None) -> str:
    """The arguments of a method, after `self`."""
    made, star = [], False
    for at, p in enumerate(list(signature.parameters.values())[1:]):
        default = "" if p.default is p.empty else " = ..."
        prefix = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        by_name = p.kind is p.KEYWORD_ONLY or at >= places(order)
        if by_name and not star and not prefix:
            star = True
            made.append("*")
        star |= prefix == "*"
        made.append(f"{prefix}{p.name}: Any{default}")
    return ", ".join(made)


def methods(cls: Any) -> Iterator[str]:
    """The public methods of linen's class, but for the call."""
    for name, value in sorted(vars(cls).items()):
        if name.startswith("_") or name in ("flax_class", "initial_state"):
            continue
        if isinstance(value, property):
            yield f"    @property\n    def {name}(self) -> Any: ..."
        elif inspect.isfunction(value):
            given = arguments(inspect.signature(value))
            yield f"    def {name}(self, {given}) -> Any: ..."


def rendered(hint: Any) -> str:
    """A type as the file has it: Any, if it is not one of Python's simple ones."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return "None" if hint is type(None) else str(hint.__name__)
    if origin in (typing.Union, types.UnionType):
        parts = list(dict.fromkeys(map(rendered, inner)))
        return "Any" if "Any" in parts else " | ".join(parts)
    if origin is collections.abc.Sequence:
        return f"Sequence[{', '.join(map(rendered, inner))}]"
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return "Callable[..., Any]"
    return "Any"


def quoted(doc: str) -> str:
    """The first line of a docstring, with which editors explain the class."""
    first = doc.strip().split("\n\n")[0].replace("\n", " ")
    return '"""' + " ".join(first.split()).replace("\\", "") + '"""'


if __name__ == "__main__":
    PATH.write_text(text())
