"""Networks of published packages: natively, and then with the bridge.

A Flax network is bridged as it is and held to `hk_bridge.testing.check`. In a Haiku
network layers of Flax run in place of the native ones, with the native weights. What
does not run natively does not count: that is an error of the package, in the list.

    pip install '.[downstream]' pytest pytest-xdist && pytest tests/downstream/packages
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from packages_case import Case
from packages_case import Haiku
from packages_flax import CASES as FLAX
from packages_haiku import CASES as HAIKU
from packages_swap import swapped
from packages_transformers import CASES as TRANSFORMERS
import pytest

from hk_bridge import _sides
from hk_bridge import testing

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not for us to mend
STREAMS = ("params", "dropout", "sing_vec")  # the last is brax's
KEYS = {stream: jax.random.key(i) for i, stream in enumerate(STREAMS)}
Tree = Any
Pass = Callable[[str], None]


@pytest.fixture
def passes(request: Any, case: Case, record_property: Any) -> Pass:
    """Tells the table that the network passes on a side, and what fault there is."""
    if case.version is None:
        pytest.skip(f"{case.package} is not installed: it is in the extra `downstream`")
    record_property("package", case.package)
    record_property("version", case.version)

    def tell(side: str) -> None:
        record_property(side, True)
        if side == "native" and case.fault:
            request.applymarker(pytest.mark.xfail(reason=case.fault, strict=True))

    return tell


@pytest.mark.parametrize("case", [*FLAX, *TRANSFORMERS], ids=str)
def test_flax(case: Case, passes: Pass) -> None:
    """Bridged, init, outputs, gradients, state and program are Flax's."""
    net = case.make()
    variables = net.module.init(KEYS, *net.args, **net.kwargs)
    kept = [collection for collection in variables if collection != "params"]
    output, _ = net.module.apply(
        variables, *net.args, rngs=KEYS, mutable=kept, **net.kwargs
    )
    assert_finite(output)
    passes("native")
    report = testing.check(net.module, *net.args, rngs=KEYS, **net.kwargs)
    assert [result.ok for result in report.results] == [True] * 5
    passes("bridged")


@pytest.mark.parametrize("case", HAIKU, ids=str)
def test_haiku(case: Case, passes: Pass) -> None:
    """With Flax layers and the native weights, the results are the same."""
    net = case.make()
    theirs = Run(net)
    assert_finite(theirs.output)
    passes("native")
    with swapped() as carry:
        ours = Run(net, carry, theirs)
    assert carry.layers, "no layer was replaced"
    assert jax.tree.map(jnp.shape, ours.made) == jax.tree.map(
        jnp.shape, carry(theirs.made)
    )
    assert_close(ours.output, theirs.output, carry.tolerance)
    assert_close(ours.next, theirs.next, carry.tolerance)
    assert_close(ours.grads, carry(theirs.grads), carry.tolerance)
    passes("bridged")


class Run:
    """A Haiku network initialised, called and differentiated.

    It starts with its own params and state, or with those of another run.

    Attributes:
      made: the params of its own init.
      state: the state that it starts with.
      output: of one call.
      next: the state after it.
      grads: of a sum over the output, by the params.
    """

    def __init__(self, net: Haiku, carry: Any = None, start: Any = None) -> None:
        key = jax.random.key(0)
        init = jax.jit(lambda: net.network.init(key, *net.args))  # not traced: inputs
        self.made, self.state = init()
        params = self.made
        if start is not None:
            params, self.state = carry(start.made), start.state

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            done = net.network.apply(params, self.state, key, *net.args)
            return _sides.total(done[0]), done

        step = jax.jit(jax.grad(loss, has_aux=True))
        self.grads, (self.output, self.next) = step(params)


def assert_close(ours: Tree, theirs: Tree, tolerance: float) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    # Of all leaves: the gradient of an attention's key bias is rounding alone.
    sizes = (float(np.abs(leaf).max(initial=0)) for leaf in jax.tree.leaves(theirs))
    atol = tolerance * max(sizes, default=0.0)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def assert_finite(output: Tree) -> None:
    leaves = jax.tree.leaves(output)
    assert leaves
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in leaves)
