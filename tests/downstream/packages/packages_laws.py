"""What a network is held to, first natively and then with the bridge.

Each function raises AssertionError, or what the network or the bridge raises.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
from packages_case import Haiku
from packages_case import Linen
from packages_case import Nnx
from packages_swap import Carry
from packages_swap import swapped

from hk_bridge import testing
from hk_bridge._proof import floats as _floats

STREAMS = ("params", "dropout", "sing_vec")  # the last is brax's
KEYS = {stream: jax.random.key(i) for i, stream in enumerate(STREAMS)}
Tree = Any


def linen_runs(net: Linen) -> None:
    """Natively, the network initialises, and its outputs are finite."""
    variables = net.module.init(KEYS, *net.args, **net.kwargs)
    kept = [collection for collection in variables if collection != "params"]
    output, _ = net.module.apply(
        variables, *net.args, rngs=KEYS, mutable=kept, **net.kwargs
    )
    assert_finite(output)


def linen_is_the_same(net: Linen) -> None:
    """Bridged, init, outputs, gradients, state and program are Flax's."""
    report = testing.check(net.module, *net.args, rngs=KEYS, **net.kwargs)
    assert [result.ok for result in report.results] == [True] * 5, report


def nnx_runs(net: Nnx) -> None:
    """Natively, the outputs of the network are finite."""
    assert_finite(nnx.clone(net.module)(*net.args, **net.kwargs))


def nnx_is_the_same(net: Nnx) -> None:
    """Bridged, init, outputs, gradients, state and program are Flax's."""
    before = jax.tree.leaves(nnx.state(net.module))
    report = testing.check(net.module, *net.args, **net.kwargs)
    assert [result.ok for result in report.results] == [True] * 5, report
    after = jax.tree.leaves(nnx.state(net.module))
    assert all(a is b for a, b in zip(before, after, strict=True))


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

    def __init__(
        self, net: Haiku, carry: Carry | None = None, start: "Run | None" = None
    ) -> None:
        key = jax.random.key(0)
        init = jax.jit(lambda: net.network.init(key, *net.args))  # not traced: inputs
        self.made, self.state = init()
        params = self.made
        if carry is not None and start is not None:
            params, self.state = carry(start.made), start.state

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            done = net.network.apply(params, self.state, key, *net.args)
            return _floats.total(done[0]), done

        step = jax.jit(jax.grad(loss, has_aux=True))
        self.grads, (self.output, self.next) = step(params)


def haiku_runs(net: Haiku) -> Run:
    """Natively, the network initialises, and its outputs are finite."""
    run = Run(net)
    assert_finite(run.output)
    return run


def haiku_is_the_same(net: Haiku, theirs: Run) -> None:
    """With Flax layers and the native weights, the results are the same."""
    with swapped(net.layers) as carry:
        ours = Run(net, carry, theirs)
    assert carry.layers, "no layer was replaced"
    shapes = [jax.tree.map(jnp.shape, x) for x in (ours.made, carry(theirs.made))]
    assert shapes[0] == shapes[1]
    assert_close(ours.output, theirs.output, carry.tolerance)
    assert_close(ours.next, theirs.next, carry.tolerance)
    assert_close(ours.grads, carry(theirs.grads), carry.tolerance)


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
