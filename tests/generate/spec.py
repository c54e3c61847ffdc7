"""A generated program as a value: a tree of pieces, and a law to hold it to."""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any

from hypothesis import strategies as st

from . import lifted
from . import pieces
from .laws import LAWS
from .layers import LAYER
from .nnx_pieces import NNX
from .nnx_pieces import NNX_INSIDE

LINEN = {**pieces.PIECES, **lifted.LIFTED, "layer": LAYER, "nnx": NNX_INSIDE}
ALL = {**LINEN, **NNX}
Choices = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece, with what was chosen, and the block inside."""

    kind: str
    choices: Choices = ()
    inside: "Block | None" = None


@dataclasses.dataclass(frozen=True)
class Block:
    """A module: its parts one after the other."""

    parts: tuple[Part, ...]
    setup: bool = False

    @property
    def nnx(self) -> bool:
        """Whether it is an NNX module."""
        return any(ALL[part.kind].nnx for part in self.parts)

    def walk(self) -> Iterator[Part]:
        """All parts, also those inside."""
        for part in self.parts:
            yield part
            if part.inside is not None:
                yield from part.inside.walk()


@dataclasses.dataclass(frozen=True)
class Program:
    """A module, how it is run, and the law that it is held to.

    Attributes:
      law: the name of the law, and `options` the names of its arguments' values.
      method: the source of what is run, as `method=` takes it.
      around: the source of a context in which the law is held.
    """

    block: Block
    law: str
    options: Choices = ()
    method: str = "None"
    around: str = ""

    @property
    def kinds(self) -> set[str]:
        """The kinds of the pieces."""
        return {part.kind for part in self.block.walk()}

    @property
    def asks_haiku(self) -> bool:
        return any(ALL[part.kind].asks_haiku for part in self.block.walk())

    @property
    def sown(self) -> tuple[str, ...]:
        """The collections that are sown into."""
        found: set[str] = set()
        for part in self.block.walk():
            chosen = dict(part.choices)
            for name in ALL[part.kind].sown:
                found.add(chosen.get(name.removeprefix("$"), name))
        return tuple(sorted(found))


def part(kind: str, *inside: Part, setup: bool = False, **chosen: str) -> Part:
    """A part by what differs from the first choices."""
    options = {name: values[0] for name, values in ALL[kind].choices.items()}
    block = Block(inside, setup) if inside else None
    return Part(kind, tuple(sorted((options | chosen).items())), block)


def program(
    law: str,
    *parts: Part,
    setup: bool = False,
    method: str = "None",
    around: str = "",
    **chosen: str,
) -> Program:
    """A program by what differs from the first choices."""
    options = {name: values[0] for name, values in LAWS[law].options.items()}
    chosen = dict(sorted((options | chosen).items()))
    return Program(Block(parts, setup), law, tuple(chosen.items()), method, around)


def written(value: Program | Part) -> str:
    """The source of `value`, by `part` and `program`."""
    if isinstance(value, Program):
        first, options, block = value.law, LAWS[value.law].options, value.block
        chosen, plain = value.options, Program(value.block, value.law)
        more = {k: getattr(value, k) for k in ("method", "around")}
        more = {k: v for k, v in more.items() if v != getattr(plain, k)}
    else:
        first, options, block = value.kind, ALL[value.kind].choices, value.inside
        chosen, more = value.choices, {}
    inner = [] if block is None else [*map(written, block.parts)]
    if block is not None and block.setup:
        more["setup"] = True
    more |= {k: v for k, v in chosen if v != options[k][0]}
    words = [repr(first), *inner, *(f"{k}={v!r}" for k, v in more.items())]
    return f"{type(value).__name__.lower()}({', '.join(words)})"


def choices(options: Any) -> st.SearchStrategy[Choices]:
    """One choice for each name."""
    names = sorted(options)
    drawn = [st.sampled_from(options[name]) for name in names]
    return st.tuples(*drawn).map(lambda values: tuple(zip(names, values, strict=True)))


LEAF_KINDS = sorted(k for k, p in LINEN.items() if not p.inside and not p.asks_haiku)
HAIKU_KINDS = sorted(k for k, p in LINEN.items() if p.asks_haiku)
INNER_KINDS = sorted(k for k, p in LINEN.items() if p.inside)
NNX_LEAF_KINDS = [*sorted(k for k, p in NNX.items() if not p.inside), "nnx_layer"]
NNX_INNER_KINDS = sorted(k for k, p in NNX.items() if p.inside)
OFTEN = [
    *(4 * ["layer"]),
    *(2 * ["param", "param_of_any_kind", "reader", "counter", "noise_if_any"]),
    *("noise_if_any", "numpy", "looks_at_variables"),
]
INNER_OFTEN = 2 * ["remat", "jit", "shared_scope_of_field", "adopted"]
DEPTH = 2  # of blocks inside others
ROOTS = (*(3 * ["linen"]), *(4 * ["haiku"]), "nnx")
METHODS = ("None", "None", "'other'", "lambda m, x: m(x) + 1.0", "Block0.other")
AROUND = (
    *[""] * 12,
    "jax.disable_jit()",
    "jax.checking_leaks()",
    "jax.enable_x64()",
    "jax.debug_key_reuse(True)",
    "jax.numpy_rank_promotion('raise')",
)


@functools.cache  # to make and check a strategy takes longer than to draw from it
def parts(depth: int, haiku: bool, nnx: bool) -> st.SearchStrategy[Part]:
    leaves = LEAF_KINDS + (6 * HAIKU_KINDS if haiku else [])
    kinds: list[str] = leaves + OFTEN + (2 * INNER_KINDS + INNER_OFTEN if depth else [])
    if nnx:
        kinds = NNX_LEAF_KINDS + (NNX_INNER_KINDS if depth else [])

    @functools.cache
    def of(kind: str) -> st.SearchStrategy[Part]:
        piece = ALL[kind]
        inside = st.none()
        if piece.inside:
            inside = blocks(depth - 1, haiku, nnx or kind == "nnx")
        return st.builds(Part, st.just(kind), choices(piece.choices), inside)

    return st.sampled_from(kinds).flatmap(of)


@functools.cache
def blocks(
    depth: int, haiku: bool = False, nnx: bool = False
) -> st.SearchStrategy[Block]:
    """Modules that nest at most `depth` deep, of linen or of NNX."""
    most = 3 if depth == DEPTH else 2
    several = st.lists(parts(depth, haiku, nnx), min_size=1, max_size=most).map(tuple)
    return st.builds(Block, several, st.just(False) if nnx else st.booleans())


def programs(laws: Any) -> st.SearchStrategy[Program]:
    """Programs, each with one of `laws`: {name: options}."""

    @functools.cache
    def of(name: str) -> st.SearchStrategy[Program]:
        law = laws[name]
        return st.builds(
            Program,
            st.sampled_from(["nnx"] if law.nnx else ROOTS).flatmap(
                lambda root: blocks(
                    DEPTH, root == "haiku" and law.allows_haiku, root == "nnx"
                )
            ),
            st.just(name),
            choices(law.options),
            st.sampled_from(METHODS if law.methods else METHODS[:1]),
            st.sampled_from(AROUND),
        )

    names = [name for name in sorted(laws) for _ in range(laws[name].weight)]
    return st.sampled_from(names).flatmap(of)
