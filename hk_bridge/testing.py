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
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _diff
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._module import FlaxModule

__all__ = ["Report", "Result", "Row", "check"]

Tree = Any
Rngs = Mapping[str, Any]
STREAMS = ("params", "dropout")


# What is compared.


@dataclasses.dataclass(frozen=True)
class Pair:
    """One module, natively and bridged, and how to call it.

    Attributes:
      module: the linen module.
      build: builds the bridged module, inside a transform.
      name: the full Haiku name of that.
      args: positional inputs.
      kwargs: keyword inputs.
      method: what to call.
      init_rngs: keys at init.
      rngs: keys in a call, by the number of the step.
      sown: collections that live for one call.
      given: variables in place of the initial ones, a part or all.
    """

    module: Any
    build: Callable[[], Any]
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    method: Any
    init_rngs: Rngs
    rngs: Callable[[int], Rngs]
    sown: frozenset[str] = frozenset()
    given: _layout.Variables | None = None

    @functools.cached_property
    def flax_start(self) -> Tree:
        """The variables that the native module starts with."""
        made = self.module.init(
            dict(self.init_rngs), *self.args, method=self.method, **self.kwargs
        )
        kept = {c: tree for c, tree in made.items() if c not in self.sown}
        given = {(c, p): leaf for c, p, leaf in _layout.leaves(self.given or {})}
        return _layout.replace(_flax.linen.unbox(kept), given)

    def flax_apply(self, variables: Tree, rngs: Rngs) -> tuple[Tree, Tree]:
        """The output of the native module, and the variables after the call."""
        mutable = [c for c in variables if c != _layout.PARAMS]
        output, mutated = self.module.apply(
            variables,
            *self.args,
            rngs=dict(rngs),
            mutable=mutable,
            method=self.method,
            **self.kwargs,
        )
        return output, {**variables, **mutated}

    @functools.cached_property
    def haiku_start(self) -> tuple[Tree, Tree]:
        """The params and the state that the bridged module starts with."""
        start: tuple[Tree, Tree] = self._transform().init(None, dict(self.init_rngs))
        return start

    def haiku_apply(self, params: Tree, state: Tree, rngs: Rngs) -> tuple[Tree, Tree]:
        """The output of the bridged module, and the state after the call."""
        done: tuple[Tree, Tree]
        done = self._transform().apply(params, state, None, dict(rngs))
        return done

    def to_flax(self, params: Tree, state: Tree) -> Tree:
        """The variables that Haiku holds, which are to be all that it holds."""
        variables = _layout.to_flax(params, state, name=self.name)
        own = _layout.to_haiku(variables, name=self.name)
        whole = {"params": params, "state": state}
        for (which, held), tree in zip(whole.items(), own, strict=True):
            extra = ", ".join(sorted(_addresses(held) - _addresses(tree)))
            assert not extra, f"Haiku {which} holds what is no variable: {extra}"
        return variables

    def _transform(self) -> Any:
        def forward(rngs: Rngs) -> Any:
            call = self.build()
            return call(*self.args, rngs=rngs, method=self.method, **self.kwargs)

        return _haiku.native.transform_with_state(forward)


def _addresses(bundles: Tree) -> set[str]:
    return {f"{name}/{leaf}" for name, bundle in bundles.items() for leaf in bundle}


def assert_identical(ours: Tree, theirs: Tree) -> None:
    """Same structure, types, dtypes and bits."""
    trees: list[Any] = [jax.tree.structure(tree) for tree in (ours, theirs)]
    assert trees[0] == trees[1], f"structure: {trees[0]} in Haiku, {trees[1]} in Flax"
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        where = jax.tree_util.keystr(path) or "the output"
        if _is_key(b):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        kinds = (_diff.describe(a), _diff.describe(b))
        assert kinds[0] == kinds[1], f"{where}: {kinds[0]} in Haiku, {kinds[1]} in Flax"
        same = a.item() == b.item() if a.dtype == object else a.tobytes() == b.tobytes()
        assert same, f"{where}: other bits{_distance(a, b)}"


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _distance(a: Any, b: Any) -> str:
    if not jnp.issubdtype(a.dtype, np.inexact):
        return ""
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    gap = np.abs(a.astype(wide) - b.astype(wide)).max()
    return f", {gap:.3g} apart at most"


# The laws. Each raises AssertionError, or returns what it compared, in words.


def same_init(pair: Pair) -> str:
    """Given the same `rngs`, every initial value is `module.init`'s."""
    theirs = pair.flax_start
    assert_identical(pair.to_flax(*pair.haiku_start), theirs)
    return _count(theirs, "leaf", "leaves")


def same_apply(pair: Pair) -> str:
    """Outputs are `module.apply`'s."""
    rngs = pair.rngs(0)
    theirs, _ = pair.flax_apply(pair.flax_start, rngs)
    ours, _ = pair.haiku_apply(*pair.haiku_start, rngs)
    assert_identical(ours, theirs)
    return _count(theirs, "array", "arrays")


def same_grad(pair: Pair) -> str:
    """Gradients by the parameters are Flax's."""
    params, state = pair.haiku_start
    rngs = pair.rngs(0)

    def loss(floats: Tree) -> jax.Array:
        output, _ = pair.haiku_apply(_abstract.filled(floats, params), state, rngs)
        return total(output)

    theirs = flax_grad(pair)
    grads = pair.to_flax(jax.grad(loss)(_floats(params)), {})
    ours = grads.get(_layout.PARAMS, {})
    assert_identical(jax.tree.leaves(ours), jax.tree.leaves(theirs))
    return _count(theirs, "leaf", "leaves")


def flax_grad(pair: Pair) -> Tree:
    """The gradients of the native module by its parameters."""
    variables = pair.flax_start
    params = variables.get(_layout.PARAMS, {})
    rngs = pair.rngs(0)

    def loss(floats: Tree) -> jax.Array:
        full = {**variables, _layout.PARAMS: _abstract.filled(floats, params)}
        return total(pair.flax_apply(full, rngs)[0])

    return jax.grad(loss)(_floats(params))


def same_state(pair: Pair, steps: int = 3) -> str:
    """State is Flax's, over several calls."""
    variables = pair.flax_start
    params, state = pair.haiku_start
    for step in range(steps):
        _, variables = pair.flax_apply(variables, pair.rngs(step))
        _, state = pair.haiku_apply(params, state, pair.rngs(step))
        try:
            assert_identical(pair.to_flax(params, state), variables)
        except AssertionError as error:
            raise AssertionError(f"step {step + 1}: {error}") from None
    kept = {c: tree for c, tree in variables.items() if c != _layout.PARAMS}
    return f"{_count(kept, 'leaf', 'leaves')}, {steps} steps"


def same_jaxpr(pair: Pair) -> str:
    """Bridged and native `apply` trace to the same equations, in the same order."""
    theirs = _traced(pair.flax_apply, pair.flax_start, pair.rngs(0))
    ours = _traced(pair.haiku_apply, *pair.haiku_start, pair.rngs(0))
    pairs = zip(equations(ours.jaxpr), equations(theirs.jaxpr), strict=False)
    for i, (a, b) in enumerate(pairs):
        assert a == b, f"equation {i}: {a[0]} {a[1]} in Haiku, {b[0]} {b[1]} in Flax"
    counts = (len(ours.jaxpr.eqns), len(theirs.jaxpr.eqns))
    assert counts[0] == counts[1], (
        f"{counts[0]} equations in Haiku, {counts[1]} in Flax"
    )
    return f"{counts[0]} equations"


def _traced(function: Callable[..., Any], *args: Any) -> Any:
    arrays = _only(_abstract.can_be_traced, args)
    run = lambda arrays: _arrays(function(*_abstract.filled(arrays, args)))
    return jax.make_jaxpr(run)(arrays)


def total(output: Tree) -> jax.Array:
    """A number that depends on every float of `output`, complex ones in two parts."""
    floats = [jnp.asarray(x) for x in jax.tree.leaves(_floats(output))]
    parts = [part for x in floats for part in _parts(x)]
    sums = (jnp.sum(jnp.sin(part.astype(jnp.float32))) for part in parts)
    return sum(sums, jnp.zeros([]))


def _parts(x: jax.Array) -> list[jax.Array]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


def equations(jaxpr: Any) -> list[Any]:
    """The equations of a jaxpr, without the names of variables."""
    rows: list[Any] = []
    for eqn in jaxpr.eqns:
        inner = [
            equations(getattr(sub, "jaxpr", sub))
            for value in eqn.params.values()
            for sub in (value if isinstance(value, (tuple, list)) else [value])
            if hasattr(sub, "eqns") or hasattr(sub, "jaxpr")
        ]
        avals = [str(v.aval) for v in (*eqn.invars, *eqn.outvars)]
        rows.append((eqn.primitive.name, avals, inner))
    return rows


def _has_gradient(leaf: Any) -> bool:
    return bool(jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.inexact))


def _arrays(tree: Tree) -> list[Any]:
    """The leaves that JAX can trace."""
    return jax.tree.leaves(_only(_abstract.can_be_traced, tree))


def _floats(tree: Tree) -> Tree:
    """`tree` with None for what has no gradient."""
    return _only(_has_gradient, tree)


def _only(keep: Callable[[Any], bool], tree: Tree) -> Tree:
    """`tree` with None for the other leaves."""
    return jax.tree.map(lambda x: x if keep(x) else None, tree)


def _count(tree: Tree, one: str, many: str) -> str:
    count = len(jax.tree.leaves(tree))
    return f"{count} {one if count == 1 else many}"


# The report.


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
      check: what is to be the same: init, outputs, gradients, state or program.
      ok: whether it is; None if there was nothing to compare.
      detail: what was compared, or how it differs.

    >>> import flax.linen as nn
    >>> check(nn.Dense(3), jnp.ones([2, 4])).results[0]
    Result(check='init', ok=True, detail='2 leaves')
    """

    check: str
    ok: bool | None
    detail: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A leaf, in Flax and in Haiku.

    Attributes:
      collection: of the leaf in Flax.
      path: of the leaf in Flax.
      haiku_module: the name of its module in Haiku.
      haiku_name: its name there.
      shape: None if it is no array.
      dtype: in words, likewise.

    >>> import flax.linen as nn
    >>> row = check(nn.Dense(3), jnp.ones([2, 4]), name="net").rows[0]
    >>> row.path, row.haiku_module, row.haiku_name, row.shape, row.dtype
    (('bias',), 'net', 'bias', (3,), 'float32')
    """

    collection: str
    path: tuple[str, ...]
    haiku_module: str
    haiku_name: str
    shape: tuple[int, ...] | None
    dtype: str | None


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """What `check` found.

    Attributes:
      module: the linen module, in words.
      name: its Haiku name.
      results: of each check.
      rows: every leaf that is kept.

    >>> import flax.linen as nn
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
        leaves = f"\n\n{_diff.table(self._leaf_rows())}" if self.rows else ""
        return f"{self._summary()}\n{_diff.table(self._result_rows())}{leaves}"

    def _repr_html_(self) -> str:
        leaves = _diff.html_table("Leaves", self._leaf_rows())
        return _diff.html_table(self._summary(), self._result_rows()) + leaves

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
            flax = _diff.spelled(row.collection, row.path)
            haiku = f"{row.haiku_module}/{row.haiku_name}"
            shape = "-" if row.shape is None else str(list(row.shape))
            rows.append((flax, haiku, shape, row.dtype or "-"))
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
      module: a linen module instance.
      *args: inputs of the module.
      variables: initial values, whole or in part, as `FlaxModule` takes them.
      rngs: keys, `{stream: key}` or one for `params`; each step folds its number in.
        By default there are some for `params` and `dropout`.
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

    >>> import flax.linen as nn
    >>> check(nn.Dense(3), jnp.ones([2, 4]))
    Dense(features=3) is the same in Haiku, as 'dense'
    check      result  detail
    ---------  ------  -----------------
    init       same    2 leaves
    outputs    same    1 array
    gradients  same    2 leaves
    state      same    0 leaves, 3 steps
    program    same    3 equations
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
    rows = tuple(_row(pair.name, *leaf) for leaf in _layout.leaves(pair.flax_start))
    results = [
        _result("init", same_init, pair),
        _result("outputs", same_apply, pair),
        _gradients(pair),
        _result(
            "state",
            functools.partial(same_state, steps=3 if steps is None else steps),
            pair,
        ),
        _result("program", same_jaxpr, pair),
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
    if rngs is None:
        keys = jax.random.split(jax.random.key(0), len(STREAMS))
        rngs = dict(zip(STREAMS, keys, strict=True))
    elif not isinstance(rngs, Mapping):
        rngs = {_layout.PARAMS: rngs}
    fold = lambda step: {k: jax.random.fold_in(v, step + 1) for k, v in rngs.items()}
    _, sown = _diff.abstract_init(module, args, kwargs, method, rngs)
    name = _diff.haiku_name(module) if name is None else name
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
        sown=sown,
        given=variables,
    )
    start = pair.flax_start  # made here, not under the trace below
    # What Flax itself refuses is for the user to mend, and no difference.
    jax.eval_shape(lambda: _arrays(pair.flax_apply(start, pair.rngs(0))))
    return pair


def _row(name: str, collection: str, path: tuple[str, ...], leaf: Any) -> Row:
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    address = _layout.address(name, collection, path)
    return Row(collection, path, *address, shape, None if dtype is None else str(dtype))


def _result(name: str, law: Callable[[Pair], str], pair: Pair) -> Result:
    try:
        return Result(name, True, law(pair))
    except AssertionError as error:
        return Result(name, False, str(error))
    except Exception as error:  # of the bridge alone: natively the module runs
        return Result(name, False, f"{type(error).__name__}: {error}")


def _gradients(pair: Pair) -> Result:
    skipped = functools.partial(Result, "gradients", None)
    start, rngs = pair.flax_start, pair.rngs(0)
    if not jax.tree.leaves(_floats(start.get(_layout.PARAMS, {}))):
        return skipped("no parameters are floats")
    outputs = jax.eval_shape(lambda: _arrays(pair.flax_apply(start, rngs)[0]))
    if not jax.tree.leaves(_floats(outputs)):
        return skipped("no outputs are floats")
    try:
        jax.eval_shape(lambda: flax_grad(pair))
    except Exception as error:  # a while loop, say, has none in Flax either
        reason = (str(error).splitlines() or [""])[0]
        return skipped(f"Flax raises {type(error).__name__}: {reason}")
    return _result("gradients", same_grad, pair)
