"""`diff`: what it finds, what it suggests, and that it makes nothing."""

import dataclasses

from catalogue import CASES
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import _abstract
from hk_bridge.migrate import _diff
from hk_bridge.migrate import diff

X = jnp.ones([2, 4])
SPEC = jax.ShapeDtypeStruct((2, 4), jnp.float32)


class Net(nn.Module):
    """Params, state and dropout, with a layer that sows."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(3)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        self.sow("losses", "l2", jnp.sum(x**2))
        self.sow("intermediates", "h", x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(2)(self.perturb("h", x))


@pytest.fixture
def variables():
    made = Net().init(jax.random.key(0), X)
    return {c: made[c] for c in ("params", "batch_stats")}


@pytest.mark.parametrize("case", [c for c in CASES if not c.eager], ids=str)
def test_what_init_makes_fits(case):
    init = lambda rngs: case.make().init(
        rngs, *case.args, method=case.method, **case.train
    )
    made = _abstract.evaluate(init, case.rngs(0, init=True))
    kept = {c: tree for c, tree in made.items() if c not in case.sown}
    for given in (kept, made):
        found = diff(given, case.make(), *case.args, method=case.method, **case.train)
        assert found.ok, found
    bare = [
        path for t in kept.values() for path in hk_bridge._layout.empty_paths(t, ())
    ]
    assert found.count == len([*hk_bridge._layout.leaves(kept), *filter(None, bare)])
    empty = diff({}, case.make(), *case.args, method=case.method, **case.train)
    assert len(empty.missing) == found.count
    assert {entry.collection for entry in empty.missing}.isdisjoint(case.sown)


def test_forms_of_variables(variables):
    boxed = jax.tree.map(lambda x: nn.Partitioned(x, (None,) * x.ndim), variables)
    frozen = nn.FrozenDict(variables) if hasattr(nn, "FrozenDict") else variables
    numpy = jax.tree.map(np.asarray, variables)
    for given in (boxed, frozen, numpy, jax.eval_shape(lambda: variables)):
        assert diff(given, Net(), SPEC, train=True).ok


def test_no_weights_are_made(variables):
    class Huge(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(10**9)(nn.Dense(10**9)(x))  # 4 EB

    found = diff({}, Huge(), SPEC)
    # The outer layer is built first.
    assert found.missing[1].expected == "float32[1000000000,1000000000]"
    assert len(found.missing) == 4


def test_a_variable_that_is_no_array():
    class Text(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("notes", "text", lambda: "a")
            return nn.Dense(3)(x)

    assert diff(Text().init(jax.random.key(0), X), Text(), SPEC).ok
    (entry, *_) = diff({"params": {}}, Text(), SPEC).missing
    assert (entry.collection, entry.path, entry.expected) == ("notes", ("text",), "str")


def test_a_forgotten_collection(variables):
    found = diff({"params": variables["params"]}, Net(), SPEC, name="outer/~/net")
    assert not found.ok
    assert not found.unexpected
    assert not found.mismatched
    assert found.missing == (
        _diff.Entry(
            "batch_stats",
            ("BatchNorm_0", "mean"),
            "outer/~/net/batch_stats/BatchNorm_0",
            "mean",
            "float32[3]",
            None,
        ),
        _diff.Entry(
            "batch_stats",
            ("BatchNorm_0", "var"),
            "outer/~/net/batch_stats/BatchNorm_0",
            "var",
            "float32[3]",
            None,
        ),
    )


def test_a_renamed_module_is_suggested(variables):
    params = dict(variables["params"])
    params["dense_0"] = params.pop("Dense_0")
    found = diff({**variables, "params": params}, Net(), SPEC)
    pairs = {(e.path, e.suggestion) for e in found.missing}
    assert pairs == {
        (("Dense_0", "kernel"), "params/dense_0/kernel"),
        (("Dense_0", "bias"), "params/dense_0/bias"),
    }
    pairs = {(e.path, e.suggestion) for e in found.unexpected}
    assert pairs == {
        (("dense_0", "kernel"), "params/Dense_0/kernel"),
        (("dense_0", "bias"), "params/Dense_0/bias"),
    }
    assert {e.haiku_module for e in found.missing} == {"net/Dense_0"}


def test_a_level_too_few_is_refused_with_the_line_that_mends_it(variables):
    with pytest.raises(hk_bridge.VariablesError, match='{"params": variables}'):
        diff(variables["params"], Net(), SPEC)
    assert diff(variables | {"memo": {}}, Net(), SPEC).ok


def test_a_module_tells_its_own_collections():
    class Memo(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("memo", "seen", jnp.zeros, (2,))
            self.sow("heard", "x", x)

    x = jnp.ones(2)
    variables = {"memo": {"seen": jnp.zeros(2)}}
    assert diff(variables, Memo(), x).ok
    assert diff({**variables, "heard": {"x": (x,)}}, Memo(), x).ok
    with pytest.raises(hk_bridge.VariablesError, match="'mem' on top"):
        diff({"mem": {"seen": jnp.zeros(2)}}, Memo(), x)


@pytest.mark.parametrize("given", ["float16", "bfloat16"])
def test_another_dtype_throughout_is_told_once(variables, given):
    found = diff(jax.tree.map(lambda leaf: leaf.astype(given), variables), Net(), SPEC)
    count = len(found.mismatched)
    assert count > 4
    assert found.dtypes == ("float32", given)
    assert repr(found) == (
        f"'net' differs: 0 missing, 0 unexpected, {count} mismatched; the module makes "
        f"{count} leaves. The {count} mismatched leaves are all {given}: load(..., "
        "dtype='float32') makes them float32, as the module does"
    )
    del variables["batch_stats"]
    mixed = jax.tree.map(lambda leaf: leaf.astype(given), variables)
    text = repr(diff(mixed, Net(), SPEC))
    assert text.count(given) == 1
    assert text.count("missing  ") >= 2


def test_dtypes_that_differ_in_two_ways_are_told_by_leaf(variables):
    kernel = variables["params"]["Dense_0"]["kernel"]
    bias = variables["params"]["Dense_0"]["bias"]
    variables["params"]["Dense_0"]["kernel"] = kernel.astype("float16")
    variables["params"]["Dense_0"]["bias"] = bias.astype("bfloat16")
    found = diff(variables, Net(), SPEC)
    assert found.dtypes is None
    assert "params/Dense_0/kernel" in repr(found)


@pytest.mark.parametrize(
    ("change", "given", "suggestion"),
    [
        (lambda w: w.T, "float32[3,4]", "leaf.T"),
        (lambda w: w.reshape(-1), "float32[12]", "leaf.reshape((4, 3))"),
        (
            lambda w: w.astype(jnp.bfloat16),
            "bfloat16[4,3]",
            "leaf.astype('float32')",
        ),
        (
            lambda w: w.T.astype(jnp.float16),
            "float16[3,4]",
            "leaf.T.astype('float32')",
        ),
        (lambda w: w[:2], "float32[2,3]", None),
        (lambda w: (w, w), "(float32[4,3], float32[4,3])", None),
        (lambda w: None, "None", None),
    ],
)
def test_mismatched(change, given, suggestion, variables):
    params = dict(variables["params"])
    params["Dense_0"] = dict(params["Dense_0"])
    params["Dense_0"]["kernel"] = change(params["Dense_0"]["kernel"])
    found = diff({**variables, "params": params}, Net(), SPEC)
    assert not found.missing
    assert not found.unexpected
    (entry,) = found.mismatched
    assert entry.path == ("Dense_0", "kernel")
    assert (entry.expected, entry.given) == ("float32[4,3]", given)
    assert entry.suggestion == suggestion


@pytest.mark.parametrize(
    ("given", "expected", "steps"),
    [
        ((24, 12), (12, 24), ".T"),
        ((1, 3), (3, 1), ".T"),
        # PyTorch's convolutions: [O, I, *spatial] into [*spatial, I, O].
        ((8, 4, 3), (3, 4, 8), ".transpose((2, 1, 0))"),
        ((8, 4, 3, 3), (3, 3, 4, 8), ".transpose((2, 3, 1, 0))"),
        ((8, 4, 3, 5), (3, 5, 4, 8), ".transpose((2, 3, 1, 0))"),
        ((8, 8, 1, 1), (1, 1, 8, 8), ".transpose((2, 3, 1, 0))"),
        ((8, 4, 2, 3, 5), (2, 3, 5, 4, 8), ".transpose((2, 3, 4, 1, 0))"),
        ((8, 4, 2, 3, 5, 6), (2, 3, 5, 6, 4, 8), None),
        ((8, 4, 3, 5), (5, 3, 4, 8), None),
        # Its linear layers into `DenseGeneral`.
        ((24, 12), (12, 4, 6), ".T.reshape((12, 4, 6))"),
        ((12, 24), (4, 6, 12), ".T.reshape((4, 6, 12))"),
        ((24, 24), (24, 4, 6), None),
        ((24, 24), (4, 6, 24), None),
        ((24,), (4, 6), ".reshape((4, 6))"),
        # Axes that are split and merged, in order.
        ((12, 24), (12, 4, 6), ".reshape((12, 4, 6))"),
        ((12, 4, 6), (12, 24), ".reshape((12, 24))"),
        ((6, 2, 5), (2, 3, 10), ".reshape((2, 3, 10))"),
        ((6, 2, 5), (4, 3, 5), None),
        ((4, 3), (12,), None),
        ((1, 4, 3), (12,), None),
        ((4, 3, 2), (24,), None),
        ((4, 3), (6, 2), None),
        # Axes of size 1.
        ((), (1,), ".reshape((1,))"),
        ((1, 1, 3), (3,), ".reshape((3,))"),
        ((3, 1), (1, 1, 3), ".reshape((1, 1, 3))"),
        ((3, 4), (1, 3, 4), ".reshape((1, 3, 4))"),
        ((3, 3), (1, 3, 3), None),
        ((4, 4, 1, 1), (4, 4), None),
        ((6, 4, 1, 1), (4, 6), None),
        ((6,), (7,), None),
    ],
    ids=str,
)
def test_a_step_is_suggested_where_it_is_the_one_way(given, expected, steps):
    class Param(nn.Module):
        @nn.compact
        def __call__(self):
            self.param("w", nn.initializers.zeros, expected)

    (entry,) = diff({"params": {"w": np.zeros(given, np.float32)}}, Param()).mismatched
    assert entry.suggestion == (steps and f"leaf{steps}")


def test_scalars_are_arrays():
    class Count(nn.Module):
        @nn.compact
        def __call__(self):
            self.variable("stats", "n", lambda: jnp.zeros([], jnp.int32))

    assert diff({"stats": {"n": 3}}, Count()).ok
    (entry,) = diff({"stats": {"n": 3.0}}, Count()).mismatched
    assert entry.suggestion == "leaf.astype('int32')"


def test_an_empty_dict_is_a_leaf_where_the_module_makes_it():
    class Empty(nn.Module):
        @nn.compact
        def __call__(self):
            self.param("e", lambda key: {"f": {}})

    fits = {"params": {"e": {"f": {}}}}
    assert Empty().init(jax.random.key(0)) == fits
    assert repr(diff(fits, Empty())) == "'empty' fits: 1 of 1 leaves"
    for params in ({}, {"e": {}}):
        (entry,) = diff({"params": params}, Empty()).missing
        assert (entry.path, entry.expected, entry.given) == (("e", "f"), "{}", None)
    (entry,) = diff({"params": {"e": {"f": np.ones(2)}}}, Empty()).mismatched
    assert (entry.expected, entry.given) == ("{}", "float64[2]")
    assert diff({**fits, "other": {"g": {}}}, Empty()).ok


def test_a_leaf_in_place_of_a_module():
    found = diff({"params": {"Dense_0": np.zeros(3)}}, Net(), SPEC)
    assert [e.path for e in found.unexpected] == [("Dense_0",)]


def test_repr(variables):
    assert repr(diff(variables, Net(), SPEC)) == "'net' fits: 8 of 8 leaves"
    params = dict(variables["params"])
    del params["Dense_1"]
    lines = repr(diff({**variables, "params": params}, Net(), SPEC)).splitlines()
    assert lines == [
        "'net' differs: 2 missing, 0 unexpected, 0 mismatched; the module makes "
        "8 leaves",
        "         Flax                   Haiku               expected      given"
        "  suggestion",
        "-------  ---------------------  ------------------  ------------  -----"
        "  ----------",
        "missing  params/Dense_1/bias    net/Dense_1/bias    float32[2]    -      -",
        "missing  params/Dense_1/kernel  net/Dense_1/kernel  float32[3,2]  -      -",
    ]


def test_html(variables):
    extra = {**variables, "<b>": {"a": np.zeros(1)}}
    html = diff(extra, Net(), SPEC)._repr_html_()
    assert "<td>&lt;b&gt;/a</td>" in html
    assert "<b>" not in html
    assert "<th>suggestion</th>" in html
    assert "fits" in diff(variables, Net(), SPEC)._repr_html_()


def test_a_diff_is_frozen(variables):
    found = diff(variables, Net(), SPEC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.missing = ()


def test_method_and_names():
    class Two(nn.Module):
        @nn.compact
        def encode(self, x):
            return nn.Dense(3, name="a/b")(x)

    for method in ("encode", Two.encode):
        found = diff({}, Two(name="mine"), SPEC, method=method)
        assert found.missing[0].haiku_module == "mine/a%2Fb"


def test_refusals():
    with pytest.raises(hk_bridge.VariablesError, match="collection 'params'"):
        diff({"params": 3}, Net(), SPEC)
    with pytest.raises(hk_bridge.VariablesError, match="dict of collections"):
        diff([1], Net(), SPEC)
    with pytest.raises(hk_bridge.ModuleTypeError, match="the class Net"):
        diff({}, Net, SPEC)


def test_many_leaves_take_little_time():
    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(150):
                x = nn.Dense(4, name=f"layer_{i}")(x)
            return x

    specs = jax.eval_shape(Deep().init, jax.random.key(0), X)
    renamed = {k.replace("layer", "block"): v for k, v in specs["params"].items()}
    found = diff({"params": renamed}, Deep(), SPEC)
    suggested = {e.path: e.suggestion for e in found.missing}
    for i in range(150):
        assert suggested[f"layer_{i}", "bias"] == f"params/block_{i}/bias"


def test_an_instance_of_nnx():
    rngs = nnx.Rngs(0)
    layers = nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
    model = nnx.Sequential(*layers, nnx.Dropout(0.5, rngs=rngs))
    params, state = hk_bridge.to_haiku(nnx.state(model), name="net")
    variables = hk_bridge.to_flax(params, state, name="net")
    for inputs in ((), (np.ones([4, 2], np.float32),)):
        assert diff(variables, model, *inputs, name="net").ok
    moved = variables["params"]["layers"][0].pop("kernel")
    variables["params"]["layers"][0]["kernl"] = moved
    variables["batch_stats"]["layers"][1]["mean"] = np.ones(4, np.float32)
    found = diff(variables, model, name="net")
    (missing,), (unexpected,) = found.missing, found.unexpected
    assert (missing.haiku_module, missing.haiku_name) == ("net/layers/%i0", "kernel")
    assert unexpected.path[-1] == "kernl"
    assert [entry.path[-1] for entry in found.mismatched] == ["mean"]
