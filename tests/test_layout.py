"""The naming law and the conversion, searched for a tree that does not survive."""

from typing import Any

import flax.core
import flax.linen as nn
import haiku as hk
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import _layout
from hk_bridge import _names
from hk_bridge.testing import assert_identical

TEXT = st.one_of(st.text(max_size=4), st.text("/%~_0a2F7E5", max_size=4))
PARTS = st.one_of(TEXT, st.integers(-3, 30))
VALUES = st.one_of(
    st.integers(0, 9),
    st.none(),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.just([1, 2]),
    st.just({1.5: 1}),
    st.just({(0, 1): {"a": 1}}),
    st.just({True: 1}),
)
TREES: Any = st.recursive(
    st.dictionaries(PARTS, VALUES, max_size=3),
    lambda inner: st.dictionaries(PARTS, st.one_of(VALUES, inner), max_size=3),
    max_leaves=8,
)
VARIABLES = st.dictionaries(st.one_of(st.just("params"), TEXT), TREES, max_size=3)
NAMES = st.sampled_from(["net", "outer/~/net", "a/b", "net_1", "~"])


@given(PARTS)
def test_a_part_survives(part):
    spelled = _names.escape(part)
    back = _names.unescape(spelled)
    assert (back, type(back)) == (part, type(part))
    assert "/" not in spelled
    assert spelled
    assert not spelled.startswith("~")


@given(PARTS, PARTS)
def test_no_two_parts_share_a_spelling(one, two):
    assert (one == two) == (_names.escape(one) == _names.escape(two))


@given(NAMES, st.lists(PARTS, max_size=4))
def test_a_path_survives(prefix, path):
    assert _names.split(prefix, _names.join(prefix, tuple(path))) == tuple(path)


@pytest.mark.parametrize(
    "part", ["%zz", "%2f", "a%", "%25%", "", "x~%7e", "%i", "%i01", "%i-0", "%i1x"]
)
def test_a_spelling_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match="is not a name that hk_bridge writes"):
        _names.unescape(part)


@given(VARIABLES, NAMES)
@example({}, "net")
@example({"params": {}}, "net")
@example({"params": {}, "stats": {}}, "net")
@example({"params": {"a": {}, "b": {"c": {}}}}, "net")
@example({"": {"": {"": 1}}}, "net")
@example({"params": {"params": {"params": 1}}}, "net")
@example({"params": {"a/b": 1, "a": {"b": 2}}}, "net")
@example({"params": {"~": {"~": 1}}, "~": {"~x": 2}}, "a/~/b")
def test_variables_survive(variables, name):
    params, state = hk_bridge.to_haiku(variables, name=name)
    assert hk_bridge.to_flax(params, state, name=name) == variables
    for tree in (params, state):
        for module_name, bundle in tree.items():
            assert module_name == name or module_name.startswith(name + "/")
            assert all("/" not in key for key in bundle)


@given(VARIABLES, VARIABLES)
def test_two_modules_do_not_mix(one, two):
    params, state = hk_bridge.to_haiku(one, name="net")
    more_params, more_state = hk_bridge.to_haiku(two, name="net_1")
    everything = ({**params, **more_params}, {**state, **more_state})
    assert hk_bridge.to_flax(*everything, name="net") == one
    assert hk_bridge.to_flax(*everything, name="net_1") == two


def test_leaves_are_handed_over_untouched():
    leaf = np.ones(3)
    params, _ = hk_bridge.to_haiku({"params": {"a": {"w": leaf}}}, name="net")
    assert params["net/a"]["w"] is leaf
    assert hk_bridge.to_flax(params, None, name="net")["params"]["a"]["w"] is leaf


def test_arguments_are_not_changed():
    variables = {"params": {"a": {"w": 1}}, "stats": {"b": {"m": 2}}}
    params, state = hk_bridge.to_haiku(variables, name="net")
    back = hk_bridge.to_flax(params, state, name="net")
    back["params"]["a"]["w"] = params["net/a"]["w"] = 9
    assert variables == {"params": {"a": {"w": 1}}, "stats": {"b": {"m": 2}}}


def test_frozen_dicts_become_dicts():
    frozen = flax.core.freeze({"params": {"a": {"w": 1}, "e": {}}})
    params, state = hk_bridge.to_haiku(frozen, name="net")
    back = hk_bridge.to_flax(params, state, name="net")
    assert type(back["params"]["a"]) is dict
    assert back == {"params": {"a": {"w": 1}, "e": {}}}


def test_haikus_own_modules_below_the_name_are_ignored():
    params = {"net": {"w": 1}, "net/~/linear": {"w": 2}, "net/~run/linear": {"w": 3}}
    assert hk_bridge.to_flax(params, None, name="net") == {"params": {"w": 1}}
    state = {"net": {"haiku_counter": 1}}
    assert hk_bridge.to_flax({}, state, name="net") == {}


class Scaled(flax.struct.PyTreeNode, flax.core.meta.AxisMetadata):
    """A box of the user's own."""

    value: Any
    note: str = flax.struct.field(pytree_node=False)

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return self.replace(value=val)

    def add_axis(self, index, params):
        return self

    def remove_axis(self, index, params):
        return self


def test_boxes_are_opened_and_put_back():
    box = nn.Partitioned(jnp.ones(2), ("x",))
    logical = nn.LogicallyPartitioned(jnp.ones(2), ("a",))
    variables = {
        "params": {
            "plain": jnp.ones(2),
            "box": box,
            "logical": logical,
            "own": Scaled(jnp.zeros(1), "mine"),
            "nested": Scaled(nn.Partitioned(jnp.ones(3), ("y",)), "outer"),
            "tree": Scaled({"a": {"b": jnp.ones(1)}}, "a dict inside"),
        },
        "stats": {"layer": {"count": nn.Partitioned(jnp.zeros(1), (None,))}},
    }
    params, state = hk_bridge.to_haiku(variables, name="net")
    for leaf in jax.tree.leaves((params, state)):
        assert isinstance(leaf, jax.Array)
    assert params["net"]["box"] is box.value
    assert sorted(params) == ["net", "net/tree/a"]
    back = hk_bridge.to_flax(params, state, name="net", like=variables)
    assert_identical(back, variables)
    shapes = jax.eval_shape(lambda: variables)
    assert_identical(
        hk_bridge.to_flax(params, state, name="net", like=shapes), variables
    )


def test_opening_a_box_adds_no_constraint():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    variables = {"params": {"w": nn.Partitioned(jnp.ones(8), ("x",), mesh=mesh)}}

    def convert(variables):
        return hk_bridge.to_haiku(variables, name="net")

    assert not jax.make_jaxpr(convert)(variables).eqns


def test_like_may_be_a_part():
    params = {"net/a": {"w": 1, "b": 2}, "net/c": {"w": 3}}
    like = {"params": {"a": {"w": nn.Partitioned(0, (None,))}, "z": {"w": 0}}}
    back = hk_bridge.to_flax(params, {}, name="net", like=like)
    assert back["params"]["a"]["w"] == nn.Partitioned(1, (None,))
    assert back["params"]["a"]["b"] == 2
    assert back["params"]["c"] == {"w": 3}


def test_what_lift_saved_is_read():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            count = self.variable("stats", "count", lambda: jnp.zeros([]))
            scale = self.param("scale", nn.initializers.ones, ())
            return nn.BatchNorm(use_running_average=True)(x) * scale + count.value

    f = hk.transform_with_state(
        lambda x: hk.experimental.flax.lift(Net(), name="net")(x)
    )
    params, state = f.init(jax.random.key(0), jnp.ones([2, 3]))
    assert "net/~" in params
    assert "net/stats/~" in state
    variables = hk_bridge.to_flax(params, state, name="net")
    expected = Net().init(jax.random.key(0), jnp.ones([2, 3]))
    assert_identical(variables, expected)
    renamed = hk_bridge.to_haiku(variables, name="encoder/~/net")
    assert sorted(renamed[0]) == ["encoder/~/net", "encoder/~/net/BatchNorm_0"]
    assert_identical(hk_bridge.to_flax(*renamed, name="encoder/~/net"), expected)


@pytest.mark.parametrize("name", ["", "/net", "net/", "1bad", "a b/net", "é", "~1/net"])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(ValueError, match="full Haiku name, like 'net'"):
        hk_bridge.to_haiku({}, name=name)
    with pytest.raises(ValueError, match="full Haiku name, like 'net'"):
        hk_bridge.to_flax({}, {}, name=name)


@pytest.mark.parametrize("name", ["net/block-1/0", "~/net", "a/~/b", "a/~encode/net"])
def test_full_names_of_modules_and_of_what_is_below(name):
    variables = {"params": {"w": 1}, "stats": {"a": {"b": 2}}}
    params, state = hk_bridge.to_haiku(variables, name=name)
    assert (params, state) == ({name: {"w": 1}}, {f"{name}/stats/a": {"b": 2}})
    assert hk_bridge.to_flax(params, state, name=name) == variables


def test_a_name_of_another_type_is_refused():
    with pytest.raises(TypeError, match="a str, not 3"):
        hk_bridge.to_haiku({}, name=3)


def test_name_is_required():
    with pytest.raises(TypeError, match="name"):
        hk_bridge.to_haiku({})


@pytest.mark.parametrize("variables", [[1], None, 3, {0: {"w": 1}}])
def test_variables_that_are_no_dict_are_refused(variables):
    with pytest.raises(hk_bridge.VariablesError, match="must be a dict of collections"):
        hk_bridge.to_haiku(variables, name="net")


@pytest.mark.parametrize("tree", [[1], None, np.ones(3), {0.5: 1}])
def test_a_collection_that_is_no_dict_is_refused(tree):
    with pytest.raises(
        hk_bridge.VariablesError, match="'kernel' must be a dict.*{...}"
    ):
        hk_bridge.to_haiku({"kernel": tree}, name="net")


def test_two_trees_mixed_are_refused():
    params = {"net": {"a": 1}, "net/a": {"w": 2}}
    with pytest.raises(
        hk_bridge.VariablesError, match="'a' is a leaf as well as a module"
    ):
        hk_bridge.to_flax(params, {}, name="net")
    backwards = dict(reversed(params.items()))
    with pytest.raises(
        hk_bridge.VariablesError, match="'a' is a leaf as well as a module"
    ):
        hk_bridge.to_flax(backwards, {}, name="net")


def test_addresses_are_where_to_haiku_puts_leaves():
    variables = {"params": {"a/b": {"~": 1}, "w": 2}, "a/b": {"c": {"": 3}, "d": 4}}
    trees = hk_bridge.to_haiku(variables, name="net")
    for collection, path, leaf in _layout.leaves(variables):
        module_name, name = _layout.address("net", collection, path)
        assert trees[collection != "params"][module_name][name] == leaf
