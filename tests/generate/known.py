"""The faults that are known: a failure that one of them explains is no news.

An entry goes when its fault is mended; `found` then has to lose its program, too.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from .laws import LAWS
from .lifted import LIFTED
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


def either(*several: Callable[[Program, str], bool]) -> Callable[[Program, str], bool]:
    """What one of `several` explains."""
    return lambda program, text: any(one(program, text) for one in several)


LIFTED_KINDS = (*LIFTED, "nn.remat", "nn.vmap", "nn.RNN")
FAULTS: tuple[Fault, ...] = (
    Fault(
        "parameter that is None",
        "a parameter that is None is made at init and not found at apply",
        has(of("|".join(LAWS), "A stored leaf has no need|cannot be `None`"), "None"),
    ),
    Fault(
        "read state rewritten",
        "state that was only read is written where its reader is lifted",
        has(
            either(
                of("like_haiku", "state that is read ends otherwise|('set', '"),
                of("like_haiku", "but output was batched", use="vmapped"),
            ),
            *LIFTED_KINDS,
        ),
    ),
    Fault(
        "equal values written",
        "`c.value = c.value` does not reach a setter",
        has(of("like_haiku", "state that is same ends otherwise|('set', "), "same"),
    ),
    Fault(
        "caller's state changed",
        "a dict with keys that are no names is changed in the caller's own state",
        has(
            of(
                "same_apply|same_call|same_again|same_shared|wrapped_cell|hooked_values",
                "the caller's tree was changed|another program",
            ),
            "{(0, 1)",
            "{1.5",
        ),
    ),
    Fault(
        "leaves of others",
        "leaves that a getter or a Haiku layer made are taken for Flax's variables",
        either(
            of(
                "own_leaves|like_haiku",
                "leaves not of Flax|the code saw|tuple index out|ScopeParamShapeError",
            ),
            of("like_haiku", "rank should be at least 1", hook="own_leaf"),
        ),
    ),
    Fault(
        "re-entrant calls",
        "re-entrant calls lose updates",
        of("like_haiku", "ends otherwise", use="reentrant"),
    ),
    Fault(
        "streams inside lifted code",
        "with keys of Haiku `has_rng` is false inside lifted code",
        either(
            of("keys_of_haiku", "the code saw", "'noise', False|'dropout', False"),
            has(
                # A shared trace knows which streams were asked for.
                has(of("same_shared", "another program"), "noise_if_any"),
                *LIFTED_KINDS,
            ),
        ),
    ),
    Fault(
        "streams of NNX code",
        "with keys of Haiku NNX code gets none for a stream but `dropout`",
        has(
            of(
                "|".join(LAWS),
                "No RngStream named 'noise'|the same for all keys of Haiku",
            ),
            "nnx_noise",
            "nnx.",
        ),
    ),
    Fault(
        "shared scope of a grandchild",
        "a scope's path is that before `share_scope`",
        has(
            of(
                "same_init|same_apply|same_grad|same_call|shown|like_haiku",
                "not in Flax's|raises|shows|made a new variable",
            ),
            "shared_scope",
            "shared_scope_of_field",
        ),
    ),
    Fault(
        "names in an interceptor",
        "leaves are named by the module, not by the name in force",
        of("like_haiku", "not in Haiku's: |missing: ", use="under_renaming"),
    ),
    Fault(
        "shape that was asked for",
        "getters are told the stored shape",
        of("like_haiku", "retrieved shape|at apply hooks were asked", hook="stacking"),
    ),
    Fault(
        "mapping as a leaf",
        "Haiku turns a leaf that is a Mapping into dicts, and nobody turns it back",
        has(
            of(
                "same_init|same_apply|same_grad|same_call|same_again|like_haiku|"
                "own_leaves|wrapped_cell|given|shown",
                "not in Flax's|not of Flax|Chex|other types|not in Haiku's|shows",
            ),
            "Chex",
        ),
    ),
    Fault(
        "leaf made while reading",
        "a getter that makes a leaf at init changes a dict that is iterated over",
        of("like_haiku", "dictionary changed size"),
    ),
    Fault(
        "leaf made for a tree",
        "a getter that makes a parameter beside a tree gets a stand-in",
        of("like_haiku|own_leaves", "_Whole|does not match shape=()"),
    ),
    Fault(
        "caught exception",
        "leaves made before an exception at init are lost if state or lifted",
        of("like_haiku", "missing: |apply raises Scope", use="caught"),
    ),
    Fault(
        "module kept by a scope",
        "a program that holds a Scope, for `nn.custom_vjp`, keeps the module alive",
        has(of("nothing_is_kept", "what an initialiser holds lives"), "custom_vjp"),
    ),
    Fault(
        "jitted anew",
        "code under `nn.jit` is traced at each init, and at each observed apply",
        either(
            of("traced_once", "the second init ran"),
            of("caches_stay", "caches grew", cls="Jitted"),
            has(of("caches_stay", "caches grew"), "jit"),
        ),
    ),
    Fault(
        "names never made",
        "`variables=` with a name that the module never makes is accepted",
        of(
            "given_wrong",
            "in variables= is accepted",
            wrong="unknown_name|unknown_level|missing_level",
        ),
    ),
    Fault(
        "numbers given",
        "`variables=` refuses a Python number for a scalar",
        of("given", "they hold float", part="numbers"),
    ),
    Fault(
        "boxes",
        "code that looks at its variables at apply does not see the boxes",
        has(
            of("|".join(LAWS), "the code saw", "Partitioned"), "partition", "Partition"
        ),
    ),
)
