"""Sharing traces, what is traced again, and what is kept alive."""

from collections.abc import Callable
import gc
from typing import Any
import weakref

import flax.linen as nn
import haiku as hk
import jax
from jax._src import util

import hk_bridge
from hk_bridge._core.traces import eagerly
from hk_bridge._flax import lifted

from .cases import KEY
from .cases import LOG
from .cases import Case
from .cases import FailsNatively
from .cases import X
from .cases import see
from .cases import set_shift
from .compare import Run
from .compare import same
from .compare import tell
from .compare import trace
from .flax_laws import bridged


def same_shared(case: Case, variants: Any, train: bool = True) -> None:
    """Sharing traces changes nothing."""

    def run(sharing: bool) -> Run:
        def forward(x: Any) -> Any:
            def all_of(x: Any) -> Any:
                for variant in variants:
                    set_shift(0.5 + variant)
                    x = hk_bridge.FlaxModule(case.make(train, variant), name="net")(x)
                return x

            if not sharing:
                return all_of(x)
            with eagerly(), hk_bridge.share_traces():
                return all_of(x)

        f = hk.transform_with_state(forward)
        params, state = jax.eval_shape(f.init, KEY, X)
        return trace(f.apply, params, state, KEY, X)

    try:
        natively = run(False)
    except Exception as error:
        raise FailsNatively from error
    ours = run(True)
    set_shift(0.5)
    ours.saw = natively.saw  # what is shared runs less often
    same(ours, natively)


class Counted(nn.Module):
    """Notes each run of the module."""

    part: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        see("run")
        return self.part(x)


Jitted = nn.jit(Counted)


def forget_what_did_not_tell() -> None:
    """As in a new process: the classes here are those of other programs, too."""
    lifted.untold.clear()
    lifted.told.clear()


def traced_once(case: Case, cls: Any) -> None:
    """A second init of the same module runs it no more often than natively."""
    forget_what_did_not_tell()

    def ran(init: Callable[[], Any]) -> int:
        init()
        del LOG[:]
        init()
        return len(LOG)

    def count(init: Callable[[], Any]) -> Any:
        found: list[int] = []
        run = trace(lambda: found.append(ran(init)))
        return run.error, found

    module = cls(case.make())
    f = hk.transform_with_state(lambda: hk_bridge.FlaxModule(module, name="net")(X))
    error, natively = count(lambda: module.init(case.rngs(init=True), X))
    if error is None:
        error, ours = count(lambda: f.init(KEY))
        assert error is not None or ours <= natively, (
            f"the second init ran {ours} things, natively {natively}"
        )


def init(f: Any, params: Any, state: Any) -> None:
    f.init(KEY)


def observed(f: Any, params: Any, state: Any) -> None:
    """An apply that an interceptor watches."""
    with hk.intercept_methods(lambda run, args, kwargs, _: run(*args, **kwargs)):
        f.apply(params, state, KEY)


def entries() -> int:
    """How many entries JAX's caches have; those of `nn.jit` are among them."""
    caches = [cache for cache in list(util._caches) if hasattr(cache, "cache_info")]
    return sum(cache.cache_info().currsize for cache in caches)


def uses_nn_jit(case: Case, module: Any) -> bool:
    """Whether methods of the module run inside of `nn.jit`, natively."""
    found: list[str] = []

    def look(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        found.extend(context.module.scope.debug_path)
        return run(*args, **kwargs)

    with nn.intercept_methods(look):
        trace(lambda: module.init(case.rngs(init=True), X))
    return any("jit(" in part for part in found)


def kept_entries() -> int:
    """The same, without those that are dead."""
    gc.collect()
    return entries()


def caches_stay(case: Case, cls: Any, how: Any) -> None:
    """To do the same again leaves nothing new in any cache, if it does not natively."""
    module = cls(case.make())
    if how is observed and uses_nn_jit(case, module):
        return  # by choice: who watches sees inside `nn.jit` at each call, so it traces
    forget_what_did_not_tell()
    f = hk.transform_with_state(lambda: hk_bridge.FlaxModule(module, name="net")(X))

    def grown(run: Callable[[], Any]) -> int:
        quiet = 0
        # They fill at first, and what other tests left in them goes by and by: that
        # may hide what two runs leave, so three times have to agree.
        for _ in range(6):
            before = entries()
            run(), run()
            quiet = 0 if entries() > before else quiet + 1
            if quiet == 3:
                return 0
        before = kept_entries()
        for _ in range(4):
            run()
        return max(0, kept_entries() - before)

    def native() -> Any:
        variables = module.init(case.rngs(init=True), X)
        return lambda: (
            module.init(case.rngs(init=True), X),
            module.apply(variables, X, rngs=case.rngs(), mutable=True),
        )

    def ours() -> Any:
        params, state = f.init(KEY)
        return lambda: how(f, params, state)

    def count(start: Callable[[], Any]) -> Any:
        found: list[int] = []
        return trace(lambda: found.append(grown(start()))).error, found

    def compare() -> str:
        error, natively = count(native)
        if error is None:
            error, found = count(ours)
            if error is None and found > natively:
                return f"caches grew by {found}, natively by {natively}"
        return ""

    if differ := compare():
        jax.clear_caches()  # a full cache does not grow
        differ = compare()
    assert not differ, differ


def holding(case: Case, held: Any) -> Case:
    """The module, and a parameter whose initialiser holds something."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            def ones(key: Any, held: Any = held) -> Any:
                return X[0] + (held is None)

            return case.make()(x) + self.param("w", ones)[None]

    return Case(lambda train=True, variant=0: Net(), case.streams, case.sown)


def run_both(case: Case, bridge: bool) -> None:
    """Init and apply."""
    if bridge:
        f = bridged(case)
        params, state = f.init(None, case.rngs(init=True))
        f.apply(params, state, None, case.rngs())
    else:
        made = case.make().init(case.rngs(init=True), X)
        case.make().apply(made, X, rngs=case.rngs(), mutable=True)


def nothing_is_kept(case: Case) -> None:
    """What initialisers hold dies with its owner, if it does natively."""

    class Held:
        """What a closure holds."""

    def alive(bridge: bool) -> bool:
        held = Held()
        run_both(holding(case, held), bridge)
        dead = weakref.ref(held)
        del held
        gc.collect()
        return dead() is not None

    def run(bridge: bool) -> Any:
        found = []
        traced = trace(lambda: found.append(alive(bridge)))
        return traced.error, found

    error, natively = run(False)
    if error is None:
        raised, ours = run(True)
        assert raised is None, f"raises, natively not: {tell(raised)}"
        assert ours == natively or natively == [True], "what an initialiser holds lives"
