"""`share_traces`: equal modules in one transform are traced once."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import threading
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core.report import Report
from hk_bridge._core.traces import Traces


class _Now(threading.local):
    """What is shared now in this thread."""

    traces: Traces | None = None


_now = _Now()


@contextlib.contextmanager
def share_traces() -> Iterator[Report]:
    """Has modules that are equal share one trace, which takes less time.

    Inside, a module that is called like one before (equal class, configuration, method,
    static arguments, shapes and dtypes) is not run again: the equations of the other
    are put in its place, with its own parameters, state and keys. That goes for bridged
    modules, for submodules of a bridged module, and for Haiku's own modules and those
    of your classes. The program and every value stay the same, under `jax.grad` too.
    Use it inside a transformed function. It ends with the block, and is of this
    thread alone.

    The first of several equal modules is run as ever, another to be traced, the rest
    not at all, so the code of a module must not do anything but compute. (That is the
    second if three or more are called alike but for a number, else the fourth. Of
    submodules and Haiku modules that call no other, 14 run as ever: to trace one takes
    longer than to run it.)
    Sharing steps aside by itself: at init and outside of `jax.jit`; for a configuration
    that holds arrays, or anything not known to be a value; for code whose global names
    stand for lists, dicts or objects, which may change between two calls; for outputs
    that hold arrays where JAX does not see them, or objects that may be written; for
    code that writes into its arguments, or returns a list or dict that it was given;
    for code inside a bridged module that asks Haiku for anything; with `mutable=` or
    `capture_intermediates=`; and while hooks of Haiku, or interceptors of Haiku or
    Flax, are in force. Submodules and Haiku modules are not shared either if their code
    mentions a name, a path or a parent, if they hold or use modules from elsewhere, or
    if they draw keys inside of `nn.remat`, `hk.remat` and their kin. Those of NNX are
    not if they are given modules or Variables, or return some, or change in other ways
    than by what their Variables hold; none in a module whose code asks for the class of
    an object (`type(x)`), which is another one meanwhile, or for a structure of NNX or
    JAX that tells it (`nnx.split`, `jax.tree.map`).

    Returns:
      A context manager. It gives a report, which is complete when the block is over:
      its text is a table of what was shared and why the rest was not, `rows` are the
      same as data, and `shared` counts by class.

    >>> import flax.linen as nn, haiku as hk, hk_bridge, jax, jax.numpy as jnp
    >>> def forward(x):
    ...     with hk_bridge.share_traces():
    ...         for _ in range(24):
    ...             x = hk_bridge.nn.LayerNorm()(x)
    ...     return x
    >>> f = hk.transform(forward)
    >>> x = jnp.ones([2, 4])
    >>> jax.jit(f.apply)(f.init(jax.random.key(0), x), None, x).shape
    (2, 4)

    With Haiku's own modules, around `apply`:

    >>> f = hk.transform(lambda x: hk.nets.MLP([4] * 24)(x))
    >>> params = f.init(jax.random.key(0), x)
    >>> with hk_bridge.share_traces() as report:
    ...     y = jax.jit(f.apply)(params, None, x)
    >>> report.shared
    {'Linear': 9}
    """
    before, report = _now.traces, Report()
    _now.traces = traces = Traces(report)
    try:
        with _haiku.sharing(traces.call):
            yield report
    finally:
        _now.traces = before


class _Bridged:
    """A call of a bridged module, as a `Call`."""

    watched: frozenset[str] = frozenset()
    patience = 0

    def __init__(self, plan: _flax.Plan, variables: Any, side: Any, args: Any, kw: Any):
        self._call = plan, variables, side, args, kw
        self._given: dict[str, Any] = {}
        self._give_back: Callable[[], None] = _haiku.nothing

    @property
    def name(self) -> str:
        name: str = self._call[2].ledger.name
        return name

    @property
    def title(self) -> str:
        return _flax.title(self._call[0].module)

    @property
    def kind(self) -> Any:
        return type(self), type(self._call[0].module)

    @property
    def others(self) -> bool:
        return bool(_haiku.is_of_many(self.name))

    def refusal(self) -> str | None:
        side = self._call[2]
        if not side.may_share():
            return _errors.SEEN
        if _haiku.are_counted():
            return _errors.COUNTED
        return _errors.INTERCEPTED if _flax.is_intercepted() else None

    def arguments(self) -> Any:
        return self._call[3:]

    def inputs(self) -> Any:
        plan, variables, side, args, kwargs = self._call
        side.read_rest(variables)
        self._given = dict(side.streams.keys)
        return variables, args, kwargs, self._given

    def held(self) -> Any:
        return _flax.parts(self._call[0])

    def parts(self) -> Any:
        return tuple(self._given), self._call[2].streams.offers("?")

    def as_ever(self) -> _flax.Outcome:
        plan, variables, side, args, kwargs = self._call
        return _flax.run(plan, variables, side, args, kwargs, side.begin)

    def drawn(self) -> tuple[str, ...]:
        return tuple(s for s in self._call[2].streams.keys if s not in self._given)

    def draw(self, drawn: Sequence[str]) -> list[Any]:
        self._give_back = _haiku.mark(_haiku.sequence())
        keys: list[Any] = self._call[2].streams.ahead(drawn)
        return keys

    def undraw(self) -> None:
        """Code that asks Haiku for a key before that of a stream gets the first."""
        self._call[2].streams.give_back()
        self._give_back()

    def apart(self, inputs: Any, drawn: Any, keys: Any) -> tuple[Any, Any]:
        plan, _, side, _, _ = self._call
        variables, args, kwargs, given = inputs
        alone = side.with_keys(given, dict(zip(drawn, keys, strict=True)))
        outcome = _haiku.apart(_flax.run)(plan, variables, alone, args, kwargs)
        wrote = outcome.record.wrote | outcome.record.made
        leaves = _layout.leaves(outcome.variables)
        return (outcome.output, {w: v for w, v in leaves if w in wrote}), None

    def result(self, output: Any, said: Any) -> _flax.Outcome:
        value, changed = output
        record = _flax.Record(wrote=set(changed))
        variables = _layout.replace(self._call[1], changed)
        return _flax.Outcome(value, variables, record)


def run(
    plan: _flax.Plan,
    variables: dict[str, Any],
    side: Any,
    args: Any,
    kwargs: Mapping[str, Any],
) -> _flax.Outcome:
    """What `_flax.run` does, by a trace that is there, if sharing is on."""
    call, traces = _Bridged(plan, variables, side, args, kwargs), _now.traces
    if traces is None or side.initializing:
        return call.as_ever()
    with contextlib.ExitStack() as inside:
        others = _flax.is_intercepted() or _haiku.are_counted()
        if side.may_share_inside() and not others:
            asked = (traces.call, traces.refuse, side.ledger.name, _haiku.apart)
            inside.enter_context(_flax.sharing(plan.module, _flax.Sharing(*asked)))
        outcome: _flax.Outcome = traces.call(call)
    return outcome
