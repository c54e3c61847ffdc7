"""The program of a bridged NNX module, equation by equation."""

from catalogue import array
from catalogue_nnx_models import TOKENS
from catalogue_nnx_models import Gemma
from catalogue_nnx_models import Mlp
from catalogue_nnx_models import ResNet
from catalogue_nnx_models import ScannedGemma
from flax import nnx
import haiku as hk
import jax
from jax.interpreters import partial_eval
import pytest

from hk_bridge import FlaxModule
from hk_bridge import wrap

KEY = jax.random.key(0)
X = array(2, 4)


class Chain(nnx.Module):
    def __init__(self, depth, rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(depth)])

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return x


MODELS = {
    "chain": (lambda: Chain(25, nnx.Rngs(0)), X),
    "mlp": (lambda: Mlp(4, 8, 3, rngs=nnx.Rngs(0)), X),
    "res_net": (lambda: ResNet(rngs=nnx.Rngs(0)), array(2, 6, 6, 3)),
    "gemma": (lambda: Gemma(7, 8, 2, rngs=nnx.Rngs(0)), TOKENS),
    "scan": (lambda: ScannedGemma(7, 8, 3, rngs=nnx.Rngs(0)), TOKENS),
}


def native(module, x):
    """The program of split, merge, call and split."""
    graphdef, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)

    def apply(params, stats, rest, x):
        copy = nnx.merge(graphdef, params, stats, rest, copy=True)
        return copy(x), nnx.state(copy, nnx.BatchStat)

    return jax.make_jaxpr(apply)(*states, x)


def needed(program):
    """The equations that the outputs need, by name."""
    jaxpr, _ = partial_eval.dce_jaxpr(
        program.jaxpr, [True] * len(program.jaxpr.outvars)
    )
    return sorted(eqn.primitive.name for eqn in jaxpr.eqns)


@pytest.mark.parametrize(("make", "x"), MODELS.values(), ids=MODELS)
def test_apply_has_the_equations_of_flax(make, x):
    module = make()
    module.eval()
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    params, state = f.init(None, x)
    ours = jax.make_jaxpr(f.apply)(params, state, None, x)
    assert needed(ours) == needed(native(module, x))


@pytest.mark.parametrize("depth", [10, 20])
def test_nothing_is_there_that_nobody_needs(depth):
    """Neither initialisers nor copies: as many equations as the layers have."""
    module = Chain(depth, nnx.Rngs(0))
    for net in (lambda: FlaxModule(module, name="net"), None):
        make = net or (lambda: wrap(Chain)(depth, name="net"))
        f = hk.transform(lambda x, make=make: make()(x))
        params = f.init(KEY, X)
        program = jax.make_jaxpr(f.apply)(params, None, X)
        theirs = jax.make_jaxpr(lambda m, x: m(x))(module, X)
        assert len(program.eqns) == len(theirs.eqns)
