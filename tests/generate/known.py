"""The faults that are known: a failure that one of them explains is no news.

An entry goes when its fault is mended; `found` then has to lose its program, too.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from .laws import LAWS
from .lifted import LIFTED
from .nnx_pieces import NNX
from .spec import ALL
from .spec import Program


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
      name: short.
      reason: what is wrong, in a line.
      explains: whether it has a program fail so; `text` is the error's type and words.
    """

    name: str
    reason: str
    explains: Callable[[Program, str], bool]


def explain(program: Program, error: Exception) -> str | None:
    """The name of the fault that has `program` fail with `error`, if it is known."""
    notes = " ".join(getattr(error, "__notes__", []))
    text = f"{type(error).__name__}: {error} {notes}"
    for fault in FAULTS:
        if fault.explains(program, text):
            return fault.name
    return None


def of(law: str, *words: str, **options: str) -> Callable[[Program, str], bool]:
    """Failures of a law with these arguments and words.

    A word, or an argument's value, may have alternatives, split by `|`."""

    def explains(program: Program, text: str) -> bool:
        drawn = dict(program.options)
        return (
            program.law in law.split("|")
            and all(any(w in text for w in word.split("|")) for word in words)
            and all(drawn.get(k) in v.split("|") for k, v in options.items())
        )

    return explains


def has(explains: Callable[[Program, str], bool], *kinds: str) -> Any:
    """The same, of programs that have one of these pieces, or words in choices."""

    def narrower(program: Program, text: str) -> bool:
        return any(
            kind == part.kind or any(kind in value for _, value in part.choices)
            for part in program.block.walk()
            for kind in kinds
        ) and explains(program, text)

    return narrower


def asks_inside(
    explains: Callable[[Program, str], bool], kind: str
) -> Callable[[Program, str], bool]:
    """The same, of programs with a piece of `kind` that has Haiku asked inside."""

    def narrower(program: Program, text: str) -> bool:
        inside = [p.inside for p in program.block.walk() if p.kind == kind and p.inside]
        asks = any(ALL[part.kind].asks_haiku for b in inside for part in b.walk())
        return asks and explains(program, text)

    return narrower


def either(*several: Callable[[Program, str], bool]) -> Callable[[Program, str], bool]:
    """What one of `several` explains."""
    return lambda program, text: any(one(program, text) for one in several)


LIFTED_KINDS = (*LIFTED, "nn.remat", "nn.vmap", "nn.RNN")
LOOKS = "looks_at_variables"
FAULTS: tuple[Fault, ...] = (
    Fault(
        "streams inside lifted code",
        "on purpose: no Haiku key can be drawn there, and an error says so",
        of("|".join(LAWS), "inside a lifted transform"),
    ),
    Fault(
        "keys of hk.vmap",
        "Haiku's `hk.vmap(..., split_rng=True)` uses a key twice, natively as well",
        of("like_haiku", "KeyReuseError", use="vmapped"),
    ),
    Fault(
        "shape inside lifted code",
        "a getter is told the stored shape of a leaf that lifted code asks for",
        has(of("like_haiku", "hooks were asked", hook="stacking"), *LIFTED),
    ),
    Fault(
        "Haiku asked in jitted code",
        "a trace of Flax's `nn.jit` keeps what it asked Haiku for, natively as well",
        asks_inside(of("same_shared|own_leaves"), "jit"),
    ),
    Fault(
        "leaf of a getter to come",
        "at apply nothing tells lifted code who made a leaf before its getter runs",
        has(
            of("like_haiku", "gain_|IndexError('tuple", use="then_own_leaf"),
            *LIFTED_KINDS,
        ),
    ),
    Fault(
        "shape of a variable to come",
        "a getter is told the stored shape where code looks at all before it asks",
        has(of("like_haiku", "hooks were asked", hook="stacking"), LOOKS),
    ),
    Fault(
        "box of a variable to come",
        "the box of a weight that no init told of is back once the weight is asked for",
        has(of("|".join(LAWS), "the code saw", "].value"), LOOKS),
    ),
    Fault(
        "names in an interceptor",
        "leaves of Flax submodules keep their path, whatever an interceptor forces",
        of("like_haiku", "not in Haiku's: |missing: ", use="under_renaming"),
    ),
    Fault(
        "hooks of to_linen",
        "Flax's `ToLinen` reads its variables as a whole, and puts all after each call",
        has(
            either(
                of("like_haiku", "ends otherwise|at apply hooks were asked"),
                of("like_haiku", "at init hooks were asked", hook="stacking"),
            ),
            *("nnx.", *NNX),
        ),
    ),
    Fault(
        "to_linen takes Mappings apart",
        "Flax's `ToLinen` makes an `nnx.State` of a value that is a Mapping",
        has(of("|".join(LAWS), "to PyTreeDef(CustomNode(State["), "nnx.", *NNX),
    ),
)
