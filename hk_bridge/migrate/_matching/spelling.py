"""How a row of a table spells parts of leaves and turns, and what they do to arrays."""

import ast
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from hk_bridge import _errors
from hk_bridge._layout import names

Shape = tuple[int, ...]
PLACE = re.compile(
    r"(.*?)(?:\.reshape\((\([\d, ]+\))\))?(?:\[([\d:, ]+)\])?", re.DOTALL
)
_TURN = r"\.T|\.(?:transpose|flip)\(\([\d, ]+\)\)|\.reshape\(\([\d, ]*\)\)"
HOW = re.compile(rf"((?:{_TURN})*)\s*([+-] [\d.e+-]+)?")
_STEP = re.compile(_TURN)
_UNSAFE = re.compile(r"[\\\t\n\r\[]|^\s|\s$|\.reshape")
_SPELLED = re.compile(r"\\u([0-9a-f]{4})")


def where_of(name: str) -> tuple[str, names.Path]:
    collection, *path = map(names.unescape, name.split("/"))
    return str(collection), tuple(path)


def checked(leaf: Any, name: str, shape: Shape) -> Any:
    if leaf is None:
        raise _errors.lacks_leaf(name)
    if tuple(leaf.shape) != shape:
        raise _errors.other_shape(name, shape, tuple(leaf.shape))
    return leaf


def steps_of(how: str) -> tuple[list[str], float]:
    found = HOW.fullmatch(how)
    assert found is not None, "A row was read with another `how`."
    return _STEP.findall(found[1]), float((found[2] or "0").replace(" ", ""))


def turned_once(leaf: Any, step: str) -> Any:
    name, _, numbers = step.partition("(")
    if name == ".flip":
        back = ast.literal_eval(numbers[:-1])
        return leaf[tuple(slice(None, None, -1 if axis in back else None)
                          for axis in range(leaf.ndim))]  # fmt: skip
    return (
        leaf.T
        if not numbers
        else getattr(leaf, name[1:])(ast.literal_eval(numbers[:-1]))
    )


def turned(leaf: Any, how: str) -> Any:
    steps, plus = steps_of(how)
    for step in steps:
        leaf = turned_once(leaf, step)
    return leaf + plus if plus else leaf


def located(part: str) -> tuple[Shape | None, tuple[Any, ...]]:
    found = PLACE.fullmatch(part)
    assert found is not None, "A row was read with another part."
    view = None if found[2] is None else ast.literal_eval(found[2])
    index: list[Any] = []
    for text in (found[3] or "").split(",") if found[3] else ():
        ends = [int(end) if end.strip() else None for end in text.split(":")]
        index.append(slice(*ends) if len(ends) > 1 else ends[0])
    return view, tuple(index)


def part_of(leaf: Any, part: str) -> Any:
    if not part:
        return leaf
    view, index = located(part)
    return (leaf if view is None else leaf.reshape(view))[index]


def put(whole: Any, value: Any, shape: Shape, part: str) -> Any:
    """A leaf with a part of it put in; the first part makes it."""
    if not part:
        return value
    view, index = located(part)
    if isinstance(value, np.ndarray) and not isinstance(whole, jnp.ndarray):
        held = np.zeros(shape, value.dtype) if whole is None else whole
        held.reshape(view or shape)[index] = value
        return held
    held = jnp.zeros(shape, value.dtype) if whole is None else jnp.asarray(whole)
    return held.reshape(view or shape).at[index].set(value).reshape(shape)


def shape_of(text: str) -> Shape:
    value = ast.literal_eval(text) if text else ()
    if not isinstance(value, tuple) or not all(isinstance(x, int) for x in value):
        raise ValueError(text)
    return value


def shape_text(shape: Shape) -> str:
    return str(tuple(int(size) for size in shape))


def spelled(name: str) -> str:
    return _UNSAFE.sub(lambda m: "".join(f"\\u{ord(c):04x}" for c in m[0]), name)


def meant(cell: str) -> str:
    return _SPELLED.sub(lambda found: chr(int(found[1], 16)), cell)
