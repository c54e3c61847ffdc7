"""Networks of published packages: natively, and then with the bridge.

A Flax network is bridged as it is and held to `hk_bridge.testing.check`. In a Haiku network
layers of Flax run in place of the native ones, with the native weights.

    pip install '.[downstream]' pytest pytest-xdist && pytest tests/downstream/packages
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from packages_case import Case
from packages_case import Haiku
from packages_case import Linen
from packages_flax import CASES as FLAX_CASES
from packages_haiku import CASES as HAIKU_CASES
from packages_swap import swapped
import pytest

from hk_bridge import testing

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not for us to mend
KEYS = {s: jax.random.key(i) for i, s in enumerate(("params", "dropout", "noise"))}
Tree = Any


def parameters(cases: list[Case], *, bridged: bool) -> list[Any]:
    return [
        pytest.param(
            case,
            id=str(case),
            marks=[pytest.mark.xfail(reason=case.fault)]
            if bridged and case.fault
            else [],
        )
        for case in cases
    ]


native = functools.partial(parameters, bridged=False)
bridged = functools.partial(parameters, bridged=True)


@pytest.fixture(autouse=True)
def tell(request: Any, record_property: Callable[[str, str], None]) -> None:
    """Tells the table what is tested, and skips what is not installed."""
    case = request.getfixturevalue("case")
    if case.version is None:
        pytest.skip(f"{case.package} is not installed: it is of the extra `downstream`")
    side = "native" if "native" in request.function.__name__ else "bridged"
    for key, value in dataclass_row(case, side).items():
        record_property(key, value)


def dataclass_row(case: Case, side: str) -> dict[str, str]:
    return {
        "package": case.package,
        "version": str(case.version),
        "network": case.network,
        "side": side,
    }


@pytest.mark.parametrize("case", native(FLAX_CASES))
def test_native_flax(case: Case) -> None:
    """The control: what fails here does not count."""
    net = case.make()
    assert isinstance(net, Linen)
    variables = net.module.init(KEYS, *net.args, **net.kwargs)
    kept = [c for c in variables if c != "params"]
    output, _ = net.module.apply(
        variables, *net.args, rngs=KEYS, mutable=kept, **net.kwargs
    )
    assert jax.tree.leaves(variables["params"])
    assert_finite(output)


@pytest.mark.parametrize("case", bridged(FLAX_CASES))
def test_bridged_flax(case: Case) -> None:
    """Init, outputs, gradients, state and program are Flax's."""
    net = case.make()
    report = testing.check(net.module, *net.args, rngs=KEYS, **net.kwargs)
    found = {result.check: result.ok for result in report.results}
    assert found["init"] and found["outputs"] and found["program"]


class Run:
    """A Haiku network, initialised, called and differentiated."""

    def __init__(self, net: Haiku, carry: Callable[[Tree], Tree], start: Any = None):
        key = jax.random.key(0)
        init = jax.jit(lambda key: net.network.init(key, *net.args, **net.kwargs))
        self.made, self.state = init(key)
        self.params = self.made if start is None else carry(start.made)
        state = self.state if start is None else start.state

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            done = net.network.apply(params, state, key, *net.args, **net.kwargs)
            return testing.total(done[0]), done

        step = jax.jit(jax.grad(loss, has_aux=True))
        self.grads, (self.output, self.next) = step(self.params)


@pytest.mark.parametrize("case", native(HAIKU_CASES))
def test_native_haiku(case: Case) -> None:
    """The control: what fails here does not count."""
    net = case.make()
    assert isinstance(net, Haiku)
    run = Run(net, dict)
    assert jax.tree.leaves(run.made)
    assert_finite(run.output)


@pytest.mark.parametrize("case", bridged(HAIKU_CASES))
def test_bridged_haiku(case: Case) -> None:
    """With Flax layers and the native weights: the same outputs, gradients, state."""
    net = case.make()
    theirs = Run(net, dict)
    with swapped() as carry:
        ours = Run(net, carry, theirs)
    assert carry.layers, "no layer was replaced"
    assert shapes(ours.made) == shapes(carry(theirs.made))
    assert_close(ours.output, theirs.output, net.atol)
    assert_close(ours.next, theirs.next, net.atol)
    assert_close(ours.grads, carry(theirs.grads), net.atol)


def shapes(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def assert_close(ours: Tree, theirs: Tree, atol: float) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def assert_finite(output: Tree) -> None:
    leaves = [
        x for x in jax.tree.leaves(output) if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    assert leaves
    assert all(bool(jnp.isfinite(x).all()) for x in leaves)
