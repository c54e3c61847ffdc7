"""The faults that are known: a failure that one of them explains is no news.

An entry goes when its fault is mended; `found` then has to lose its program, too.
"""

from collections.abc import Callable
import dataclasses

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


FAULTS: tuple[Fault, ...] = ()
