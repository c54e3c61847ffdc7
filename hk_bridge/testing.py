"""`check`: proof that a module is the same in Haiku as in Flax, for test suites.

The laws behind it are functions of a `Pair`, one module natively and bridged, for those
who bring modules into Haiku by other ways than `FlaxModule`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import inspect
from typing import Any

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge._core.module import FlaxModule
from hk_bridge._layout.leaf import Leaf
from hk_bridge._proof.laws import apply_programs as apply_programs
from hk_bridge._proof.laws import assert_identical as assert_identical
from hk_bridge._proof.laws import assert_same as assert_same
from hk_bridge._proof.laws import grad_programs as grad_programs
from hk_bridge._proof.laws import init_programs as init_programs
from hk_bridge._proof.laws import same_apply as same_apply
from hk_bridge._proof.laws import same_grad as same_grad
from hk_bridge._proof.laws import same_init as same_init
from hk_bridge._proof.laws import same_program as same_program
from hk_bridge._proof.laws import same_state as same_state
from hk_bridge._proof.sides import NotInFlax as NotInFlax
from hk_bridge._proof.sides import Pair as Pair
from hk_bridge._proof.sides import Programs as Programs
from hk_bridge._proof.sides import Tree as Tree
from hk_bridge.migrate._diff import haiku_name
from hk_bridge.migrate._masks import Masks as Masks
from hk_bridge.migrate._masks import Treated as Treated
from hk_bridge.migrate._masks import compare_masks as compare_masks

__docformat__ = "google"  # for pdoc
__all__ = ["Masks", "Report", "Result", "Row", "Treated", "check", "compare_masks"]

STREAMS = ("params", "dropout")
# What answers for streams of NNX that have no key of their own.
DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
      check: what is to be the same: init, outputs, gradients, state or program.
      ok: whether it is; None if there was nothing to compare.
      detail: what was compared, or how it differs.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> check(nn.Dense(3), jnp.ones([2, 4])).results[0]
    Result(check='init', ok=True, detail='2 leaves')
    """

    check: str
    ok: bool | None
    detail: str


@dataclasses.dataclass(frozen=True)
class Row(Leaf):
    """A leaf, in Flax and in Haiku.

    Attributes:
      collection, path: where it is in Flax.
      haiku_module, haiku_name: where it is in Haiku.
      shape: None if it is no array.
      dtype: in words, likewise.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> row = check(nn.Dense(3), jnp.ones([2, 4]), name="net").rows[0]
    >>> row.path, row.haiku_module, row.haiku_name, row.shape, row.dtype
    (('bias',), 'net', 'bias', (3,), 'float32')
    """

    shape: tuple[int, ...] | None
    dtype: str | None


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """What `check` found.

    Attributes:
      module: the linen or NNX module, in words.
      name: its Haiku name.
      results: of each check.
      rows: every leaf that is kept.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> report = check(nn.Dense(3), jnp.ones([2, 4]))
    >>> report.ok, [result.check for result in report.results]
    (True, ['init', 'outputs', 'gradients', 'state', 'program'])
    """

    module: str
    name: str
    results: tuple[Result, ...]
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return all(result.ok is not False for result in self.results)

    def __repr__(self) -> str:
        leaves = f"\n\n{_tables.table(self._leaf_rows())}" if self.rows else ""
        return f"{self._summary()}\n{_tables.table(self._result_rows())}{leaves}"

    def _repr_html_(self) -> str:
        leaves = _tables.html_table("Leaves", self._leaf_rows())
        return _tables.html_table(self._summary(), self._result_rows()) + leaves

    def _summary(self) -> str:
        found = "is the same" if self.ok else "is NOT the same"
        return f"{self.module} {found} in Haiku, as {self.name!r}"

    def _result_rows(self) -> list[tuple[str, ...]]:
        words = {True: "same", False: "DIFFERS", None: "skipped"}
        rows: list[tuple[str, ...]] = [("check", "result", "detail")]
        rows += [(r.check, words[r.ok], r.detail) for r in self.results]
        return rows

    def _leaf_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("Flax", "Haiku", "shape", "dtype")]
        for row in self.rows:
            shape = "-" if row.shape is None else str(list(row.shape))
            rows.append((*row._cells(), shape, row.dtype or "-"))
        return rows


def check(
    module: Any,
    *args: Any,
    variables: _layout.Variables | None = None,
    rngs: Any = None,
    steps: int | None = None,
    method: Callable[..., Any] | str | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Report:
    """Proof that `module` is the same in Haiku as in Flax, to the last bit.

    The module is built natively and bridged, and run with the same keys. Compared are
    initial variables, outputs, gradients by the parameters (of a sum over all outputs),
    state after each of some steps, and the equations of the traced program.

    Args:
      module: a linen module instance, or an NNX one.
      *args: inputs of the module.
      variables: initial values, whole or in part, as `FlaxModule` takes them.
      rngs: keys, `{stream: key}` or one for `params`, of NNX for `default`; each step
        folds its number in. By default there are some for these and `dropout`.
      steps: how many calls to compare state over, by default 3.
      method: what to run, as in `module.apply`.
      name: the Haiku name; by default as `FlaxModule` names itself.
      **kwargs: keyword inputs of the module. Those that are named as a keyword above
        are to be set by `method=lambda m, x: m(x, steps=5)`.

    Returns:
      A `Report`, whose `repr` lists the checks and all leaves.

    Raises:
      AssertionError: something differs; its argument is the `Report`.
      TypeError: a keyword above is one of the module's call, too.
      ValueError: `name` is none that Haiku takes.
      Whatever Flax raises if the module cannot run natively.

    >>> import flax.linen as nn, jax.numpy as jnp
    >>> check(nn.Dense(3), jnp.ones([2, 4]))
    Dense(features=3) is the same in Haiku, as 'dense'
    check      result  detail
    ---------  ------  ------------------------
    init       same    2 leaves
    outputs    same    1 array
    gradients  same    2 leaves
    state      same    0 leaves, 3 steps
    program    same    init, apply and gradient
    <BLANKLINE>
    Flax           Haiku         shape   dtype
    -------------  ------------  ------  -------
    params/bias    dense/bias    [3]     float32
    params/kernel  dense/kernel  [4, 3]  float32
    """
    module, bound_to = _flax.unbound(module)
    own = {"variables": variables, "rngs": rngs, "steps": steps, "name": name}
    _check_keywords(module, {**own, "method": method})
    variables = bound_to if variables is None else variables
    pair = _pair(module, args, kwargs, variables, rngs, method, name)
    rows = tuple(_row(pair.name, *leaf) for leaf in _layout.leaves(pair.start))
    results = [
        _result("init", same_init, pair),
        _result("outputs", same_apply, pair),
        _result("gradients", same_grad, pair),
        _result(
            "state",
            functools.partial(same_state, steps=3 if steps is None else steps),
            pair,
        ),
        _result("program", same_program, pair),
    ]
    report = Report(_flax.describe(module), pair.name, tuple(results), rows)
    if not report.ok:
        raise AssertionError(report)
    return report


def _check_keywords(module: Any, own: Mapping[str, Any]) -> None:
    """Refuses keywords of `check` that might be meant for the module's call."""
    function = _flax.resolve(module, own["method"])
    taken = inspect.signature(function).parameters
    for key, value in own.items():
        if value is not None and key in taken:
            raise _errors.keyword_of_both(key, _flax.title(module))


def _pair(
    module: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    variables: _layout.Variables | None,
    rngs: Any,
    method: Any,
    name: str | None,
) -> Pair:
    is_nnx = _flax.is_nnx(module)
    if rngs is None:
        streams = (DEFAULT, *STREAMS) if is_nnx else STREAMS
        keys = jax.random.split(jax.random.key(0), len(streams))
        rngs = dict(zip(streams, keys, strict=True))
    elif not isinstance(rngs, Mapping):
        rngs = {DEFAULT if is_nnx else _layout.PARAMS: rngs}
    fold = lambda step: {k: jax.random.fold_in(v, step + 1) for k, v in rngs.items()}
    sown: frozenset[str] = frozenset()
    if not is_nnx:  # run with values, not by shape: the module may look at them
        _, sown = _flax.init(module, _flax.resolve(module, method), rngs, args, kwargs)
    name = haiku_name(module) if name is None else name
    full = _haiku.native.experimental.force_name(name)  # it may have slashes
    make = lambda: _haiku.native.Module(name=full)
    _haiku.native.transform(make).init(None)  # Haiku refuses a bad name here
    pair = Pair(
        module=module,
        build=lambda: FlaxModule(module, variables=variables, name=full),
        name=name,
        args=args,
        kwargs=kwargs,
        method=method,
        init_rngs=rngs,
        rngs=fold,
        sown=sown - {_layout.PARAMS},
        given=variables,
    )
    # What Flax itself refuses is for the user to mend, and no difference.
    _, after = pair.native.apply(pair.at_step(0), pair.start)
    new = frozenset(after.keys() - pair.start.keys())  # sown, which NNX does at calls
    return dataclasses.replace(pair, sown=pair.sown | new)


def _row(name: str, where: _layout.Where, leaf: Any) -> Row:
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    address = _layout.address(name, where)
    return Row(*where, *address, shape, None if dtype is None else str(dtype))


def _result(name: str, law: Callable[[Pair], str], pair: Pair) -> Result:
    try:
        return Result(name, True, law(pair))
    except NotInFlax as why:
        return Result(name, None, str(why))
    except AssertionError as error:
        return Result(name, False, str(error))
    except Exception as error:  # of the bridge alone: natively the module runs
        return Result(name, False, f"{type(error).__name__}: {error}")
