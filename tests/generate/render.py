"""A program as Python: what the search runs, and the script that a stranger can run."""

import ast
from collections.abc import Iterator
import itertools
import pathlib
import string
import symtable

from .spec import ALL
from .spec import Block
from .spec import Program

HERE = pathlib.Path(__file__).parent
# Where the names come from that a script uses, in the order in which it has them.
SOURCES = (
    *("cases", "numbering", "hooks", "uses", "compare", "twin"),
    *("flax_laws", "call_laws", "haiku_laws", "shown_laws", "wrap_laws", "cost_laws"),
    "nnx_laws",
)
# What a script imports, if it uses it, by name.
IMPORTS = {
    **{name: f"import {name}" for name in ("contextlib", "copy", "dataclasses")},
    **{name: f"import {name}" for name in ("functools", "gc")},
    "weakref": "import weakref",
    "collections": "import collections",
    "Graph": "from hk_bridge._proof.graph import Graph",
    "Counter": "from collections import Counter",
    "Callable": "from collections.abc import Callable",
    "Iterator": "from collections.abc import Iterator",
    "Any": "from typing import Any",
    "NamedTuple": "from typing import NamedTuple",
    "lifted": "from hk_bridge._flax import lifted",
    "chex": "import chex",
    "meta": "from flax.core import meta",
    "nn": "import flax.linen as nn",
    "nnx": "from flax import nnx",
    "flax": "import flax.errors\nimport flax.struct",
    "hk": "import haiku as hk",
    "hk_bridge": "import hk_bridge",
    "_program": "from hk_bridge._proof import program as _program",
    "eagerly": "from hk_bridge._core.traces import eagerly",
    "jax": "import jax",
    "util": "from jax._src import util",
    "core": "from jax.extend import core",
    "partial_eval": "from jax.interpreters import partial_eval",
    "jnp": "import jax.numpy as jnp",
    "jmp": "import jmp",
    "np": "import numpy as np",
}


OTHER = ["", "    def other(self, x):", "        return self(x) * 2.0"]


def indent(text: str, by: int) -> list[str]:
    return [" " * by + line for line in text.splitlines()]


class _Renderer:
    """Writes the classes of a program, the innermost first."""

    def __init__(self) -> None:
        self.count = itertools.count()
        self.blocks = itertools.count()
        self.lines: list[str] = []

    def block(self, block: Block) -> str:
        """Writes `block` and gives the name of its class."""
        name = f"Block{next(self.blocks)}"
        fields: list[tuple[str, str]] = []
        makes: list[str] = []
        body: list[str] = []
        for part in block.parts:
            piece, i = ALL[part.kind], str(next(self.count))
            inner = self.block(part.inside) if part.inside is not None else ""
            # The choices first: they have places of their own.
            chosen = dict(part.choices)
            made = f"self.v{i}" if block.setup or block.nnx else f"v{i}"
            places = {"i": i, "v": made, "B": inner, **chosen}

            def fill(text: str, places: dict[str, str] = places) -> str:
                for _ in range(2):
                    for word in ("make_", "Remat", "Jitted"):
                        text = text.replace(f"{word}$B", f"{word}{places['B']}")
                    text = string.Template(text).safe_substitute(places)
                return text

            if piece.top:
                self.lines += [fill(piece.top), "", ""]
            if piece.field:
                fields.append((f"f{i}", fill(piece.field)))
            if piece.make:
                makes += fill(f"$v = {piece.make}").splitlines()
            body += fill(piece.body).splitlines()
        if block.nnx:
            self.write_nnx(name, makes, body)
        else:
            self.write(name, block, fields, makes, body)
        return name

    def write_nnx(self, name: str, makes: list[str], body: list[str]) -> None:
        lines = [f"class {name}(nnx.Module):"]
        lines += ["    def __init__(self, train=True, *, rngs):"]
        lines += ["        self.train = train", *indent("\n".join(makes), 8)]
        lines += ["", "    def __call__(self, x):"]
        lines += [*indent("\n".join(body), 8), "        return x"]
        self.lines += [*lines, *OTHER] if name == "Block0" else lines
        self.lines += ["", "", f"def make_{name}(train=True, variant=0):"]
        self.lines += [f"    return nnx.bridge.to_linen({name}, train)", "", ""]

    def write(
        self,
        name: str,
        block: Block,
        fields: list[tuple[str, str]],
        makes: list[str],
        body: list[str],
    ) -> None:
        lines = [
            f"class {name}(nn.Module):",
            "    train: bool = True",
        ]
        lines += [f"    {field}: Any = None" for field, _ in fields]
        if block.setup:
            # What an initialiser would take from the input.
            made = [line.replace("x.shape", "X.shape") for line in makes]
            lines += ["", "    def setup(self):", *indent("\n".join(made) or "pass", 8)]
        else:
            body = [*makes, *body]
        lines += ["", "    @nn.compact", "    def __call__(self, x):"]
        lines += [*indent("\n".join(body), 8), "        return x"]
        lines += OTHER if name == "Block0" else []
        given = "".join(f", {field}={value}" for field, value in fields)
        lines += ["", "", f"def make_{name}(train=True, variant=0, cls=None):"]
        lines += [
            f"    return (cls or {name})(train=train{given})",
            *("", ""),
        ]
        self.lines += lines


def module(program: Program) -> str:
    """The source of the module and the case."""
    renderer = _Renderer()
    name = renderer.block(program.block)
    options = ""
    if program.sown:
        options += f", sown={program.sown}"
    if program.method != "None":
        options += f", method={program.method}"
    if program.asks_haiku:
        options += ", asks_haiku=True"
    if program.block.nnx:
        options += f", nnx={name}"
    return "\n".join([*renderer.lines, f"CASE = Case(make_{name}{options})", ""])


def law(program: Program) -> str:
    """The source of the law that is held."""
    options = "".join(f", {name}={value}" for name, value in program.options)
    call = f"{program.law}(CASE{options})"
    return f"with {program.around}:\n    {call}\n" if program.around else f"{call}\n"


def script(program: Program) -> str:
    """A script that fails as the program does, by itself."""
    text = module(program) + "\n" + law(program)
    needed = _names(text)
    definitions = list(_definitions())
    before = -1
    while len(needed) > before:
        before = len(needed)
        for _, names, used in definitions:
            needed |= used if needed & names else set()
    sources = [source for source, names, _ in definitions if needed & names]
    imports = [line for name, line in IMPORTS.items() if name in needed]
    return "\n\n\n".join(["\n".join(imports), *sources, text])


def _names(source: str) -> set[str]:
    """The names that `source` takes from outside of it, or defines there."""
    found: set[str] = set()
    tables = [symtable.symtable(source, "<source>", "exec")]
    while tables:
        table = tables.pop()
        is_top = table.get_type() == "module"
        symbols = (s for s in table.get_symbols() if is_top or s.is_global())
        found |= {symbol.get_name() for symbol in symbols}
        tables += table.get_children()
    return found


def _definitions() -> Iterator[tuple[str, set[str], set[str]]]:
    """`(source, what it defines, what it uses)` of each statement of the sources."""
    for name in SOURCES:
        text = (HERE / f"{name}.py").read_text()
        lines = text.splitlines()
        for node in ast.parse(text).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined = {node.name}
                first = min([node.lineno, *[d.lineno for d in node.decorator_list]])
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = (
                    node.targets if isinstance(node, ast.Assign) else [node.target]
                )
                defined = {t.id for t in targets if isinstance(t, ast.Name)}
                first = node.lineno
            else:
                continue
            source = "\n".join(lines[first - 1 : node.end_lineno])
            yield source, defined, _names(source) - defined
