"""Flax's public surface: keys from Haiku, and that no layer or transform lacks."""

import pathlib
import re

import catalogue
import catalogue_linen
from catalogue_linen import CASES
import flax.linen as nn
import haiku as hk
import jax
from laws import flax_apply
from laws import flax_init
from laws import haiku_init
from laws import network
from laws import transform
from laws import variables
import pytest

from hk_bridge.testing import assert_identical

ALL = [*catalogue.CASES, *catalogue_linen.CASES]

# Each call of SelfAttention warns; no other case needs a filter.
pytestmark = pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_keys_come_from_haiku(case):
    """Without `rngs`, every stream gets its key, also inside lifted transforms."""
    f = hk.transform_with_state(network(case))
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    given = jax.eval_shape(lambda: init(f, case))
    drawn = jax.eval_shape(lambda key: f.init(key, case.train), jax.random.key(0))
    assert shapes(drawn) == shapes(given)
    keys = dict(case.rngs(1))
    rngs = jax.eval_shape(lambda: f.apply(*init(f, case), None, case.train, keys))
    auto = jax.eval_shape(
        lambda key: f.apply(*init(f, case), key, case.train), jax.random.key(0)
    )
    assert shapes(auto) == shapes(rngs)


def init(f, case):
    return f.init(None, case.train, case.rngs(0, init=True))


@pytest.mark.weekly
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.startswith("fp8")], ids=str
)
def test_overwrite_with_gradient(case):
    """Quantised layers hand their new scales out as the gradient by the old ones."""
    params, state = haiku_init(case)

    def ours(state):
        return transform(case).apply(params, state, None, {}, {})[0].sum()

    def theirs(tree):
        return flax_apply(case, {**flax_init(case), **tree}, {}, {})[0].sum()

    tree = variables({}, state)
    assert list(tree) == ["_overwrite_with_gradient"]
    new = jax.grad(ours)(state)
    assert_identical(variables({}, new), jax.grad(theirs)(tree))
    history = variables({}, new)["_overwrite_with_gradient"]
    assert any(float(abs(x).max()) > 0.0 for x in jax.tree.leaves(history))


# Nothing is left out.


def test_every_layer_runs_in_a_case():
    """Classes are those that Flax runs at init, and their bases."""

    def native_init(case):
        rngs = case.rngs(0, init=True)
        return case.make().init(rngs, *case.args, method=case.method, **case.train)

    ran = set()

    def watch(next_fun, args, kwargs, context):
        ran.update(type(context.module).__mro__)
        return next_fun(*args, **kwargs)

    jax.clear_caches()  # nn.jit runs no module whose trace it has
    with nn.intercept_methods(watch):
        for case in filter(lambda case: case.compiles, ALL):
            jax.eval_shape(lambda case=case: native_init(case))
    layers = {x for x in vars(nn).values() if isinstance(x, type)}
    missing = {x.__name__ for x in layers if issubclass(x, nn.Module)}
    assert missing - {x.__name__ for x in ran} == set()


# What changes how the methods of a module run, and is not in `flax.linen.transforms`.
MARKS = {"compact", "compact_name_scope", "nowrap", "share_scope", "BatchApply"}


def test_every_transform_is_in_a_case():
    transforms = {
        name
        for name, value in vars(nn).items()
        if getattr(value, "__module__", None) == "flax.linen.transforms"
    }
    assert {"vmap", "scan", "jit", "remat", "fold_rngs"} <= transforms
    sources = [
        pathlib.Path(m.__file__).read_text() for m in (catalogue, catalogue_linen)
    ]
    used = set(re.findall(r"\bnn\.(\w+)", "".join(sources)))
    assert (transforms | MARKS) - used == set()
