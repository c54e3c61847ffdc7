"""Options of the command line that are more than text, without JAX."""

import argparse
import ast
import re
from typing import Any
from typing import NamedTuple

_SHORT = {
    "bf": "bfloat",
    "f": "float",
    "c": "complex",
    "i": "int",
    "s": "int",
    "u": "uint",
}
# What other languages write, and a text that is true would be.
_NEARLY = {"true": "True", "false": "False", "null": "None", "none": "None"}
_NEARLY |= {word.upper(): value for word, value in _NEARLY.items()}
_DTYPES = {"bool", "bfloat16", *(f"float{bits}" for bits in (16, 32, 64))}
_DTYPES |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES |= {"complex64", "complex128"}
_INPUT = re.compile(r"(?P<dtype>\w+)\[(?P<shape>(\d+(,\d+)*)?)\]")


# The packages of each extra that commands need.
EXTRAS = {
    "demo": ("optax", "sklearn", "tqdm", "matplotlib"),
    "checkpoint": ("orbax", "safetensors", "tqdm"),
    "completion": ("shtab",),
}


class CannotStart(Exception):
    """A command has what it needs, but not as it needs it: told in one line."""


class Input(NamedTuple):
    """What `f32[2,224,224,3]` says."""

    dtype: str
    shape: tuple[int, ...]


def parse_input(text: str) -> Input:
    """The type of an option: an array, as JAX writes one.

    >>> parse_input("f32[2,3]"), parse_input("int32[]")
    (Input(dtype='float32', shape=(2, 3)), Input(dtype='int32', shape=()))
    """
    match = _INPUT.fullmatch(text.replace(" ", ""))
    if match is None:
        message = f"{text!r} is no array like 'f32[2,224,224,3]' or 'i32[8]'"
        raise argparse.ArgumentTypeError(message)
    short = re.fullmatch(r"([a-z]+)(\d+)", match["dtype"])
    name = _SHORT.get(short[1], short[1]) + short[2] if short else match["dtype"]
    name = {"pred": "bool"}.get(name, name)
    if name not in _DTYPES:
        message = f"{match['dtype']!r} is no dtype of an input; f32 and i32 are two"
        raise argparse.ArgumentTypeError(message)
    sizes = [int(size) for size in match["shape"].split(",") if size]
    return Input(name, tuple(sizes))


def parse_setting(text: str) -> tuple[str, Any]:
    """The type of an option: `name=value`, the value a Python literal or else text.

    >>> parse_setting("features=(1, 2)"), parse_setting("dtype=bfloat16")
    (('features', (1, 2)), ('dtype', 'bfloat16'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    if value in _NEARLY:
        other = _NEARLY[value]
        message = (
            f'{value!r} is no Python value: write {key}={other}, or {key}="{value!r}" '
            "for the text"
        )
        raise argparse.ArgumentTypeError(message)
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value
