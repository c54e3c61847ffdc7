"""The laws for cases of NNX: those of `laws.py`, of which some read otherwise here.

An instance has its values before it runs. So a call at init starts from what the one
before left, as in Flax, and `init` gives what was there before the first.
"""

from typing import Any

from catalogue import Case
from flax import nnx
import haiku as hk
import jax
import laws
from laws import NAME
from laws import Tree

import hk_bridge
from hk_bridge import _abstract
from hk_bridge._proof import sides


def round_trip(case: Case) -> None:
    """`to_flax` and `to_haiku` are inverses."""
    params, state = laws.pairs(case)[0].haiku_spec
    tree = laws.variables(params, state)
    again = hk_bridge.to_haiku(tree, name=NAME, collections=tree)
    laws.assert_same_leaves(again, (params, state))
    other = {"linear": {"w": jax.numpy.ones([1])}}
    both = ({**params, **other}, {**state, **other})
    like = None if tree else {}  # of a module without leaves nothing says its name
    laws.assert_same_leaves(hk_bridge.to_flax(*both, name=NAME, like=like), tree)


def one_pass_init(case: Case) -> None:
    """The module's code runs once in `init` and once in `apply`."""
    runs = 0

    class Counted(nnx.Module):
        def __init__(self, inner: Any):
            self.inner = inner

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal runs
            runs += 1
            return laws.called(self.inner, case.method, *args, **kwargs)

    module = Counted(case.make())

    def forward(kwargs: Any, rngs: Any) -> Any:
        net = case.bridge(module, name=NAME)
        return net(*case.args, rngs=rngs, **kwargs)

    f = hk.transform_with_state(forward)
    start = _abstract.evaluate(f.init, None, case.train, case.rngs(0, init=True))
    assert runs == 1
    _abstract.evaluate(f.apply, *start, None, case.train, case.rngs(1))
    assert runs == 2


def calls_agree_in_init(case: Case) -> None:
    """A call during init sees what the one before wrote; init gives none of it."""
    pair = laws.pairs(case)[0]
    outputs: list[Any] = []

    def forward(*keys: Any) -> None:
        net = case.bridge(case.make(), name=NAME)
        call = lambda rngs: net(*case.args, rngs=rngs, method=case.method, **case.train)
        outputs[:] = map(call, keys)

    def ours(*keys: Any) -> Tree:
        start = laws.variables(*hk.transform_with_state(forward).init(None, *keys))
        return [*outputs], start

    def theirs(*keys: Any) -> Tree:
        outputs, start = [], pair.native.init(pair.at_init)
        after = start
        for rngs in keys:
            inputs = sides.Inputs(rngs, case.args, case.train)
            output, after = pair.native.apply(inputs, after)
            outputs.append(output)
        return outputs, start

    keys = case.rngs(0, init=True), pair.rngs(1)
    one, two = (_abstract.trace(run, *keys) for run in (ours, theirs))
    laws.assert_same_program(one, two)


def instance_stays(case: Case) -> None:
    """Neither the values of the instance change, nor what else is in its graph."""
    module = case.make()
    graphdef, before = nnx.split(module)
    held = dict(nnx.to_flat_state(before))
    values = {path: _value(leaf) for path, leaf in held.items()}
    start = laws.haiku_init(case)
    rngs = case.rngs(1)
    laws.transform(case).apply(*start, None, case.train, rngs)
    run = lambda: laws.transform(case).apply(*start, None, case.train, rngs)
    _abstract.evaluate(run)
    graphdef_after, after = nnx.split(module)
    assert graphdef_after == graphdef
    after = dict(nnx.to_flat_state(after))
    assert after.keys() == values.keys()
    assert all(after[path] is leaf for path, leaf in held.items())
    assert all(_value(after[path]) is value for path, value in values.items())


def _value(leaf: Any) -> Any:
    return leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf


class Six(nnx.Module):
    """Six equal modules."""

    def __init__(self, make: Any, method: Any):
        self.modules, self.method = nnx.List([make() for _ in range(6)]), method

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return [laws.called(m, self.method, *args, **kwargs) for m in self.modules]


def sharing_does_not_matter(case: Case) -> None:
    """Of equal modules, the program is the one without `share_traces`."""
    laws.sharing_does_not_matter(case, Six)


INSTEAD = (
    *(round_trip, one_pass_init, calls_agree_in_init),
    sharing_does_not_matter,
)
LAWS = [
    *({law.__name__: law for law in INSTEAD}.get(x.__name__, x) for x in laws.LAWS),
    instance_stays,
]
