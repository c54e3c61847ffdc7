"""What a call begins with of collections that live for one call: `transient={...}`."""

from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge._core.traces import eagerly
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), [3, 4])


class Inner(nn.Module):
    """Perturbs below the top, twice, once in a collection of its own."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        x = self.perturb("h", x)
        x = self.perturb("g", nn.tanh(x), "gradients")
        return nn.Dropout(0.5, deterministic=not train)(x)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = self.perturb("input", x)
        return nn.Dense(2)(nn.tanh(Inner(name="inner")(x, train)))


class Scanned(nn.Module):
    """Each turn has perturbations of its own."""

    @nn.compact
    def __call__(self, x):
        class Turn(nn.Module):
            @nn.compact
            def __call__(self, carry, _):
                return self.perturb("h", nn.tanh(nn.Dense(4)(carry))), None

        axes = {"params": 0, "perturbations": 0}
        scan = nn.scan(Turn, variable_axes=axes, split_rngs={"params": True}, length=2)
        return scan(name="turns")(x, None)[0]


COLLECTIONS = ["perturbations", "gradients"]


def bridged(module, **kwargs):
    """The output, and what may be perturbed, as Haiku has them."""

    def forward(x, begins, mutable, rngs=None):
        transient = dict.fromkeys(COLLECTIONS) if begins is None else begins
        net = FlaxModule(module, transient=transient, name="net")
        return net(x, mutable=mutable, rngs=rngs, **kwargs)

    return hk.transform_with_state(forward)


def loss(y):
    return jnp.sum(jnp.sin(y))


@pytest.mark.parametrize(
    ("module", "kwargs"),
    [(Net(), {"train": True}), (Net(), {"train": False}), (Scanned(), {})],
    ids=["train", "eval", "scan"],
)
def test_gradients_by_perturbations_are_flaxs(module, kwargs):
    f, rngs = bridged(module, **kwargs), {"params": KEY, "dropout": KEY}
    params, state = f.init(KEY, X, None, None, rngs)
    variables = hk_bridge.to_flax(params, state, name="net")
    assert not {*COLLECTIONS} & {*variables}

    def native(begins, mutable):
        given = {**variables, **begins}
        return module.apply(given, X, mutable=mutable, rngs=rngs, **kwargs)

    asked = [*COLLECTIONS, "batch_stats"]
    (y, found), _ = f.apply(params, state, None, X, None, asked, rngs)
    assert_identical((y, found), native({}, asked))
    found = {name: tree for name, tree in found.items() if name != "batch_stats"}
    assert "perturbations" in found
    more = jax.tree.map(lambda leaf: leaf + 0.5, found)
    for begins in (found, more):
        ours = lambda b: f.apply(params, state, None, X, b, None, rngs)[0]
        theirs = lambda b: native(b, ["batch_stats"])[0]
        assert_identical(ours(begins), theirs(begins))
        grads = jax.grad(lambda b, y=ours: loss(y(b)))(begins)
        assert_identical(grads, jax.grad(lambda b, y=theirs: loss(y(b)))(begins))
        assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))
        mutated = f.apply(params, state, None, X, begins, asked, rngs)[0][1]
        assert_identical({name: mutated[name] for name in begins}, begins)


def test_state_moves_beside_them_and_they_are_not_kept():
    f, rngs = bridged(Net()), {"params": KEY, "dropout": KEY}
    params, state = f.init(KEY, X, None, None, rngs)
    _, found = f.apply(params, state, None, X, None, True, rngs)[0]
    found = {name: found[name] for name in COLLECTIONS}
    _, plain = f.apply(params, state, None, X, None, None, rngs)
    assert_identical(f.apply(params, state, None, X, found, None, rngs)[1], plain)
    assert jax.tree.structure(plain) == jax.tree.structure(state)
    assert any(np.any(plain[m][k] != state[m][k]) for m in state for k in state[m])


def test_init_begins_with_them_too():
    """As `module.init` does not; so only they differ, and nothing of them is kept."""
    f, rngs = bridged(Net(), train=False), {"params": KEY}
    params, state = f.init(KEY, X, None, None, rngs)
    found = f.apply(params, state, None, X, None, COLLECTIONS)[0][1]
    assert_identical(f.init(KEY, X, found, None, rngs), (params, state))


def test_where_one_is_missing_it_is_flaxs_error():
    f = bridged(Net(), train=False)
    params, state = f.init(KEY, X, None, None)
    begins = {"perturbations": {"input": jnp.zeros_like(X)}}
    with pytest.raises(ValueError, match="missing perturbation variable h") as error:
        f.apply(params, state, None, X, begins, None)
    assert "FlaxModule 'net'" in "".join(error.value.__notes__)


def test_under_shared_traces():
    f = bridged(Net(), train=False)
    params, state = f.init(KEY, X, None, None)
    found = f.apply(params, state, None, X, None, COLLECTIONS)[0][1]
    more = jax.tree.map(lambda leaf: leaf + 0.5, found)

    def twice(begins):
        both = [f.apply(params, state, None, X, b, None)[0] for b in (begins, more)]
        return loss(both[0]), both

    expected = jax.jit(jax.grad(twice, has_aux=True))(found)
    with eagerly(), hk_bridge.share_traces():
        assert_identical(jax.jit(jax.grad(twice, has_aux=True))(found), expected)


class Counting(nn.Module):
    """A cache of the caller's."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("cache", "count", lambda: jnp.zeros([], jnp.int32))
        count.value += 1
        return x * count.value.astype(x.dtype)


def test_a_cache_that_the_caller_keeps():
    def forward(x, cache):
        net = FlaxModule(Counting(), transient={"cache": cache}, name="net")
        return net(x, mutable=["cache"])

    f = hk.without_apply_rng(hk.transform(forward))
    params = f.init(None, X, None)
    y, cache = f.apply(params, X, {"count": jnp.int32(4)})[0], None
    assert_identical(y, X * 5)
    for step in (1, 2):
        y, mutated = f.apply(params, X, cache)
        native = {} if cache is None else {"cache": cache}
        assert_identical((y, mutated), Counting().apply(native, X, mutable=["cache"]))
        cache = mutated["cache"]
        assert cache["count"] == step


def test_of_a_wrapped_class():
    layer = hk_bridge.wrap(Net)

    def forward(x, begins):
        return layer(transient={"perturbations": begins}, name="net")(x, False)

    f = hk.without_apply_rng(hk.transform_with_state(forward))
    params, state = f.init(KEY, X, None)
    begins = {"input": jnp.ones_like(X), "inner": {"h": jnp.ones([3, 4])}}
    variables = hk_bridge.to_flax(params, state, name="net")
    y = Net().apply({**variables, "perturbations": begins}, X, False)
    assert_identical(f.apply(params, state, X, begins)[0], y)


def test_an_array_in_the_place_of_a_collection():
    forward = lambda x: FlaxModule(nn.Dense(2), transient={"perturbations": X})(x)
    with pytest.raises(hk_bridge.VariablesError, match=r"\{'perturbations': \{name: "):
        hk.transform(forward).init(KEY, X)


@pytest.mark.parametrize("transient", ["params", ["params"], {"params": {}}])
def test_parameters_are_not_transient(transient):
    forward = lambda x: FlaxModule(nn.Dense(2), transient=transient)(x)
    with pytest.raises(hk_bridge.VariablesError) as error:
        hk.transform(forward).init(KEY, X)
    for part in ("'dense'", "transient='params'", "net.apply({**net.variables"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("begins", "part"),
    [
        (1.0, "The collection 'perturbations' must be a dict"),
        ({"h": jax.ShapeDtypeStruct([3], "float32")}, "jax.ShapeDtypeStruct"),
    ],
)
def test_of_a_wrong_form(begins, part):
    forward = lambda x: FlaxModule(Net(), transient={"perturbations": begins})(x)
    with pytest.raises(hk_bridge.VariablesError, match=part):
        hk.transform_with_state(forward).init(KEY, X)


# NNX.


class Perturbed(nnx.Module):
    """The perturbation has the name of a submodule."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 3, rngs=rngs)
        self.last = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(jnp.tanh(self.perturb("h", self.linear(x))))


class Nested(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Perturbed(rngs)])

    def __call__(self, x):
        return 2.0 * self.blocks[0](self.perturb("input", x))


@pytest.mark.filterwarnings("ignore:.*outside of 'nnx.capture:DeprecationWarning")
@pytest.mark.parametrize("cls", [Perturbed, Nested])
def test_gradients_by_perturbations_are_those_of_nnx(cls):
    model = cls(nnx.Rngs(0))
    f = bridged(model)
    params, state = f.init(None, X, None, None)
    assert not state
    found = f.apply(params, state, None, X, None, ["perturbations"])[0][1]
    more = jax.tree.map(lambda leaf: leaf + 0.5, found)
    for begins in (found, more):
        ours = lambda b, mutable=None: f.apply(params, state, None, X, b, mutable)[0]
        grads = jax.grad(lambda b, y=ours: loss(y(b)))(begins)
        (_, mutated) = ours(begins, ["perturbations"])
        assert_identical(mutated, begins)
        y, theirs = natively(model, begins)
        assert_identical(ours(begins), y)
        assert_identical(grads, {"perturbations": theirs})
        assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


def natively(model, begins):
    """The output and the gradient, by NNX itself, as its version has it."""
    if hasattr(nnx, "capture"):
        _, state = nnx.capture(model, nnx.Perturbation)(X)
        nnx.replace_by_pure_dict(state, begins["perturbations"])
        captured = lambda m, s: nnx.capture(m, nnx.Perturbation, init=s)(X)[0]
        grads = nnx.grad(lambda m, s: loss(captured(m, s)), argnums=1)(model, state)
        return captured(model, state), nnx.to_pure_dict(grads)
    model(X)  # makes the variables
    graph, kept, state = nnx.split(model, nnx.Param, nnx.Perturbation)
    nnx.replace_by_pure_dict(state, begins["perturbations"])
    run = lambda s: nnx.merge(graph, kept, s)(X)
    grads = jax.grad(lambda s: loss(run(s)))(state)
    for path in [("h",), ("blocks", 0, "h"), ("input",)]:
        parent = model
        for part in path[:-1]:
            parent = (
                parent[part] if isinstance(part, int) else getattr(parent, part, None)
            )
        if parent is not None and hasattr(parent, path[-1]):
            delattr(parent, path[-1])
    return run(state), nnx.to_pure_dict(grads)


@pytest.mark.skipif(not hasattr(nnx, "capture"), reason="NNX itself cannot, before")
def test_a_perturbation_may_have_the_name_of_a_submodule():
    class Same(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            return self.perturb("linear", self.linear(x))

    model = Same(nnx.Rngs(0))
    f = bridged(model)
    params, state = f.init(None, X, None, None)
    begins = {"perturbations": {"linear": jnp.ones([3, 3])}}
    y, _ = f.apply(params, state, None, X, begins, None)
    assert_identical(y, jnp.ones([3, 3]) + model.linear(X))
