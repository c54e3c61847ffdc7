"""Whether a law holds for a case, bridged by `FlaxModule` and by `lift`."""

from collections.abc import Callable
import contextlib
import dataclasses
import linecache
from typing import Any
import warnings

import catalogue
from catalogue import Case
import catalogue_linen
import laws

from . import lift

Bridge = Callable[[Case], contextlib.AbstractContextManager[Case]]
Law = Callable[[Case], Any]

BRIDGES: dict[str, Bridge] = {"hk_bridge": contextlib.nullcontext, "lift": lift.asked}
CASES = {case.name: case for case in [*catalogue.CASES, *catalogue_linen.CASES]}
LAWS = {law.__name__: law for law in laws.LAWS}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a law.

    Attributes:
      law: its name.
      case: the name of the case.
      bridge: what took the module into Haiku.
      error: why the law does not hold, None if it does.
    """

    law: str
    case: str
    bridge: str
    error: str | None


def judge(case_name: str, law_names: list[str], values: bool) -> list[Verdict]:
    """What becomes of a case under those of these laws that the tests ask of it.

    Args:
      values: ask laws too that the tests leave to `--whole`.
    """
    warnings.simplefilter("ignore")
    asked = laws.parameters([CASES[case_name]])
    return [
        verdict(*parameters.values, bridge)
        for parameters in asked
        if parameters.values[0].__name__ in law_names
        if values or not parameters.marks
        for bridge in BRIDGES
    ]


def verdict(law: Law, case: Case, bridge: str) -> Verdict:
    """Asks the law of the case, with that bridge."""
    error = None
    with BRIDGES[bridge](case) as bridged:
        try:
            law(bridged)
        except Exception as raised:
            error = f"{type(raised).__name__}: {_words(raised)}"
    return Verdict(law.__name__, case.name, bridge, error)


def _words(error: Exception) -> str:
    """The first line of the text of an error, or the `assert` that has none."""
    if str(error):
        return str(error).splitlines()[0]
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    return linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
