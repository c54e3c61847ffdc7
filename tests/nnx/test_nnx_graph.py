"""The graph of an NNX module in Haiku: names, sharing, circles, and that it stays."""

from typing import Any

from catalogue import array
from catalogue_nnx import Circle
from catalogue_nnx import Deep
from catalogue_nnx import Shared
from catalogue_nnx import Values
from catalogue_nnx_models import Mlp
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from replay import pure

from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge import to_haiku
from hk_bridge.testing import assert_identical
from hk_bridge.testing import check

KEY = jax.random.key(0)
X = array(2, 4)


def transform(module: Any, **options: Any) -> Any:
    forward = lambda x: FlaxModule(module, name="net", **options)(x)
    return hk.transform_with_state(forward)


# Names.


def test_the_name_is_that_of_the_class():
    class RmsBlock(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones([]))

        def __call__(self, x):
            return x * self.w[...]

    f = hk.transform(lambda x: FlaxModule(RmsBlock())(x))
    assert f.init(None, X) == {"rms_block": {"w": 1.0}}
    two = hk.transform(lambda x: FlaxModule(RmsBlock())(FlaxModule(RmsBlock())(x)))
    assert sorted(two.init(None, X)) == ["rms_block", "rms_block_1"]


def test_paths_are_names():
    params, state = transform(Deep(nnx.Rngs(0))).init(None, X)
    assert state == {}
    rows = [f"net/rows/%i{i}/%i{j}" for i, j in ((0, 0), (0, 1), (1, 0))]
    odd = ("0", "a%2Fb", "%7E", "%7Einit", "%252F", " ", "é")
    named = [f"net/named/{name}" for name in odd]
    plain = ["net/plain/%i0/w", "net/plain/%i1"]
    assert sorted(params) == sorted([*rows, *named, *plain])
    assert list(params["net/plain/%i1"]) == ["%i0"]


def test_lists_are_numbers_in_flax():
    module = Deep(nnx.Rngs(0))
    params, _ = transform(module).init(None, X)
    variables = to_flax(params, {}, name="net")
    assert_identical(variables["params"], pure(module, nnx.Param))


def test_trees_are_leaves_of_their_own():
    params, state = transform(Values(nnx.Rngs(0))).init(None, X)
    assert isinstance(params["net"]["pair"], tuple)
    assert set(params["net/tree/w"]) == {"v"}
    assert state == {"net/Variable": {"none": None}}


# Sharing.


def test_what_is_shared_is_one_leaf():
    module = Shared(nnx.Rngs(0))
    f = transform(module)
    params, state = f.init(None, X)
    assert sorted(params) == ["net/again", "net/norm"]
    assert list(state) == ["net/batch_stats/norm"]
    loss = lambda params: f.apply(params, state, None, X)[0].sum()
    expected = nnx.grad(lambda m: m(X).sum())(nnx.clone(module))
    grads = to_flax(jax.grad(loss)(params), {}, name="net")
    assert_identical(grads["params"], nnx.to_pure_dict(expected))


def test_circles():
    module = Circle(nnx.Rngs(0))
    params, _ = transform(module).init(None, X)
    assert sorted(params) == ["net", "net/child/layer", "net/other/layer"]
    assert_identical(transform(module).apply(params, {}, None, X)[0], module(X))


# The instance.


def test_the_instance_stays():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    graphdef, before = nnx.split(module)
    leaves = {p: v.get_raw_value() for p, v in nnx.to_flat_state(before)}
    f = transform(module)
    params, state = f.init(KEY, X)
    for key in jax.random.split(KEY):
        _, state = jax.jit(f.apply)(params, state, key, X)
        loss = lambda p, s=state, key=key: f.apply(p, s, key, X)[0].sum()
        jax.grad(loss)(params)
        _, state = f.apply(params, state, key, X)
    after = nnx.split(module)
    assert after[0] == graphdef
    for path, variable in nnx.to_flat_state(after[1]):
        assert variable.get_raw_value() is leaves[path]


def test_an_error_leaves_the_instance_as_it_was():
    class Fails(nnx.Module):
        def __init__(self):
            self.count = nnx.BatchStat(jnp.zeros([]))
            self.mode = "up"

        def __call__(self, x):
            self.count[...] += 1.0
            self.mode = "down"
            raise RuntimeError("as it says")

    module = Fails()
    with pytest.raises(RuntimeError, match="as it says"):
        transform(module).init(None, X)
    assert (float(module.count[...]), module.mode) == (0.0, "up")


def test_what_a_call_sets_is_forgotten():
    """An attribute that is no Variable lives for one call, as under `nnx.merge`."""

    class Remembers(nnx.Module):
        def __init__(self):
            self.calls = 0
            self.w = nnx.Param(jnp.ones([]))

        def __call__(self, x):
            self.calls += 1
            return x * self.w[...] * self.calls

    module = Remembers()
    f = transform(module)
    params, state = f.init(None, X)
    for _ in range(2):
        assert_identical(f.apply(params, state, None, X)[0], X)
    assert module.calls == 0


def test_two_transforms_share_an_instance():
    module = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    one, two = (transform(module) for _ in range(2))
    params, state = one.init(None, X)
    _, changed = one.apply(params, state, None, X)
    assert jnp.any(changed["net/batch_stats"]["mean"] != 0.0)
    assert_identical(two.init(None, X), (params, state))


def test_two_modules_of_one_instance_have_values_of_their_own():
    layer = nnx.Linear(4, 4, rngs=nnx.Rngs(0))

    def forward(x):
        return FlaxModule(layer, name="one")(FlaxModule(layer, name="two")(x))

    params = hk.transform(forward).init(None, X)
    assert sorted(params) == ["one", "two"]
    zeros = jax.tree.map(jnp.zeros_like, params["two"])
    y = hk.transform(forward).apply({**params, "two": zeros}, None, X)
    assert_identical(y, layer(jnp.zeros_like(X)))


def test_an_instance_that_is_made_in_the_transform():
    def forward(x):
        rngs = nnx.Rngs(hk.next_rng_key() if hk.running_init() else 0)
        return FlaxModule(nnx.Linear(4, 3, rngs=rngs), name="net")(x)

    f = hk.transform(forward)
    one, two = (jax.jit(f.init)(jax.random.key(seed), X) for seed in (0, 1))
    assert jnp.any(one["net"]["kernel"] != two["net"]["kernel"])
    y = jax.jit(f.apply)(one, None, X)
    expected = jax.jit(lambda x, p: x @ p["kernel"] + p["bias"][None])(X, one["net"])
    assert_identical(y, expected)


# Given variables.


def other(module: Any) -> Any:
    return jax.tree.map(lambda x: x + 1.0, pure(module, nnx.Param))


def test_variables_replace_values():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    given = other(module)
    whole = {"params": given, "batch_stats": pure(module, nnx.BatchStat)}
    for variables in (whole, {"params": {"linear1": given["linear1"]}}):
        params, state = transform(module, variables=variables).init(KEY, X)
        found = to_flax(params, state, name="net")
        expected = {**pure(module, nnx.Param), **variables["params"]}
        assert_identical(found["params"], expected)
        assert_identical(found["batch_stats"], whole["batch_stats"])


def test_abstract_instances_take_variables():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    abstract = nnx.eval_shape(lambda: Mlp(4, 8, 3, rngs=nnx.Rngs(0)))
    variables = {"params": other(module), "batch_stats": pure(module, nnx.BatchStat)}
    f = transform(abstract, variables=variables)
    params, state = f.init(KEY, X)
    assert_identical(to_flax(params, state, name="net"), variables)
    y, _ = f.apply(params, state, KEY, X)
    merged, _ = transform(module).apply(params, state, KEY, X)
    assert_identical(y, merged)


def test_abstract_instances_run_on_what_haiku_holds():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    variables = {"params": other(module), "batch_stats": pure(module, nnx.BatchStat)}
    abstract = nnx.eval_shape(lambda: Mlp(4, 8, 3, rngs=nnx.Rngs(0)))
    y, _ = transform(abstract).apply(*to_haiku(variables, name="net"), KEY, X)
    assert_identical(
        y,
        transform(module, variables=variables).apply(
            *to_haiku(variables, name="net"), KEY, X
        )[0],
    )


def test_variables_are_read():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))

    def forward(x):
        net = FlaxModule(module, name="net")
        net(x)
        return net.variables

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    variables, after = f.apply(params, state, KEY, X)
    assert_identical(variables, to_flax(params, after, name="net"))


# `check`.


def test_check():
    report = check(Mlp(4, 8, 3, rngs=nnx.Rngs(0)), X, name="net")
    assert report.ok
    assert [result.ok for result in report.results] == [True] * 5
    names = {f"{row.collection}/{'/'.join(row.path)}" for row in report.rows}
    assert {"params/linear1/kernel", "batch_stats/bn/mean"} <= names
    assert "net/batch_stats/bn/mean" in repr(report)


def test_check_takes_what_it_takes_of_linen():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    part = {"params": {"linear1": other(module)["linear1"]}}
    keys = {"default": jax.random.key(4)}
    assert check(module, X, variables=part, rngs=keys, steps=2).ok
    method = lambda m, x: m.linear1(x)
    assert check(module, X, method=method).ok
    assert check(nnx.Embed(4, 4, rngs=nnx.Rngs(0)), X, method="attend").ok
