"""All classes of linen and NNX, as the catalogue and the laws have them."""

from collections.abc import Iterator
from typing import Any
from typing import NamedTuple
import warnings

from catalogue import Case
from flax import nnx
import flax.linen as nn
import jax
import laws
import laws_nnx
import test_laws

import hk_bridge
from hk_bridge.migrate._twins import rows


class Row(NamedTuple):
    """A class of Flax.

    Attributes:
      name: in its module.
      here: how it is written in Haiku.
      twin: Haiku's own layer with its weights, if there is one, and whether that gives
        the same bits.
      cases: of the catalogue in which it runs.
      laws: which of them are held to each law.
    """

    name: str
    here: str
    twin: str
    cases: list[str]
    laws: dict[str, int]

    @property
    def native(self) -> str:
        """What is shown to be as without the bridge: programs, or values alone."""
        program = "program" if self.laws["same_program"] else ""
        return program or ("values" if self.laws["same_apply"] else "")


def linen() -> list[Row]:
    """Every module class of `flax.linen`."""
    ran = {case.name: _ran_linen(case) for case in test_laws.LINEN}
    return list(_rows(nn, nn.Module, ran, laws.LAWS))


def of_nnx() -> list[Row]:
    """Every module class of `flax.nnx`."""
    ran = {case.name: _ran_nnx(case) for case in test_laws.NNX}
    return list(_rows(nnx, nnx.Module, ran, laws_nnx.LAWS))


def _rows(
    library: Any, base: type, ran: dict[str, set[type]], of: list[Any]
) -> Iterator[Row]:
    held: dict[str, set[str]] = {}
    for parameter in test_laws.PARAMETERS:
        law, case = parameter.values
        held.setdefault(case.name, set()).add(law.__name__)
    for name, cls in sorted(vars(library).items()):
        if not (isinstance(cls, type) and issubclass(cls, base)):
            continue
        if cls is base or name != cls.__name__:  # an old name of it
            continue
        cases = [case for case, classes in ran.items() if cls in classes]
        names = [law.__name__ for law in of]
        counts = {
            law: sum(law in held.get(case, ()) for case in cases) for law in names
        }
        yield Row(name, _here(library, name), _twin(cls), cases, counts)


def _here(library: Any, name: str) -> str:
    if library is nn and name in hk_bridge.nn.__all__:
        return f"hk_bridge.nn.{name}"
    prefix = "nn" if library is nn else "nnx"
    return f"FlaxModule({prefix}.{name}(...))"


def _twin(cls: type) -> str:
    row = rows._ROWS.get(cls)
    if row is None:
        return ""
    return f"hk.{row.layer.__name__}" + ("" if row.exact else ", up to rounding")


def _ran_linen(case: Case) -> set[type]:
    """The classes that `init` of a case runs, and their bases."""
    ran: set[type] = set()

    def watch(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        ran.update(type(context.module).__mro__)
        return next_fun(*args, **kwargs)

    def init() -> Any:
        rngs = case.rngs(0, init=True)
        return case.make().init(rngs, *case.args, method=case.method, **case.train)

    jax.clear_caches()  # `nn.jit` runs no module of which it has the trace
    with nn.intercept_methods(watch), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of old classes of linen
        _ = jax.eval_shape(init) if case.compiles else init()
    return ran


def _ran_nnx(case: Case) -> set[type]:
    """The classes of the modules in an instance, and their bases."""
    parts = nnx.iter_modules(case.make())
    return {cls for _, part in parts for cls in type(part).__mro__}


LAWS = {law.__name__: law.__doc__ or "" for law in (*laws_nnx.LAWS, *laws.LAWS)}
