"""The naming law and the conversion, searched for a tree that does not survive."""

import collections
import copy
import types
from typing import Any

from boxes import Box
import chex
from flax import nnx
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
from hk_bridge._layout import Where
from hk_bridge._layout import names
from hk_bridge._layout import whole
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
    spelled = names.escape(part)
    back = names.unescape(spelled)
    assert (back, type(back)) == (part, type(part))
    assert "/" not in spelled
    assert spelled
    assert not spelled.startswith("~")


@given(PARTS, PARTS)
def test_no_two_parts_share_a_spelling(one, two):
    assert (one == two) == (names.escape(one) == names.escape(two))


@given(NAMES, st.lists(PARTS, max_size=4))
def test_a_path_survives(prefix, path):
    assert names.split(prefix, names.join(prefix, tuple(path))) == tuple(path)


@pytest.mark.parametrize(
    "part", ["%zz", "%2f", "a%", "%25%", "", "x~%7e", "%i", "%i01", "%i-0", "%i1x"]
)
def test_a_spelling_that_is_none_is_refused(part):
    with pytest.raises(ValueError, match="is not a name that hk_bridge writes"):
        names.unescape(part)


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
    params, state = hk_bridge.to_haiku(variables, name=name, collections=variables)
    assert hk_bridge.to_flax(params, state, name=name) == variables
    for tree in (params, state):
        for module_name, bundle in tree.items():
            assert module_name == name or module_name.startswith(name + "/")
            assert all("/" not in key for key in bundle)


@given(VARIABLES, VARIABLES)
def test_two_modules_do_not_mix(one, two):
    params, state = hk_bridge.to_haiku(one, name="net", collections=one)
    more = hk_bridge.to_haiku(two, name="net_1", collections=two)
    everything = ({**params, **more[0]}, {**state, **more[1]})
    assert hk_bridge.to_flax(*everything, name="net", like=one) == one
    assert hk_bridge.to_flax(*everything, name="net_1", like=two) == two


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
    assert hk_bridge.to_flax({}, state, name="net", like={}) == {}
    with pytest.raises(hk_bridge.VariablesError, match="there is a Haiku module of th"):
        hk_bridge.to_flax({}, state, name="net")


class Scaled(Box):
    """A box of the user's own."""

    note: str = flax.struct.field(pytree_node=False)


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
    with pytest.raises(hk_bridge.VariablesError, match="'cache' must be a dict.*{...}"):
        hk_bridge.to_haiku({"cache": tree}, name="net")


# What is no variables, though it is a tree, and names that are of nothing.

BARE = {"Dense_0": {"kernel": 1}, "bias": 2}


@pytest.mark.parametrize("tree", [BARE, {**BARE, "batch_stats": {}}])
def test_a_tree_without_params_is_refused_with_both_lines_that_mend_it(tree):
    with pytest.raises(hk_bridge.VariablesError) as caught:
        hk_bridge.to_haiku(tree, name="net")
    assert str(caught.value) == (
        "The variables have 'Dense_0', 'bias' on top, which is none of Flax's own "
        "collections, and no 'params'. If they are the parameters alone, write "
        '{"params": variables}, or load(path, collection="params"). If these are '
        "collections of a module without parameters, write to_haiku(variables, "
        f"name=..., collections={list(tree)})."
    )


def test_the_lines_that_mend_a_tree_without_params():
    params, state = hk_bridge.to_haiku({"params": BARE}, name="net")
    assert (sorted(params), state) == (["net", "net/Dense_0"], {})
    memo = {"memo": {"w": 1}}
    for names_on_top in ("memo", ["memo"], memo):
        trees = hk_bridge.to_haiku(memo, name="net", collections=names_on_top)
        assert trees == ({}, {"net/memo": {"w": 1}})


@pytest.mark.parametrize("collection", sorted(_layout.FLAXS_OWN - {"params"}))
def test_flaxs_own_collections_need_no_params(collection):
    tree = {collection: {"w": 1}}
    assert hk_bridge.to_haiku(tree, name="net")[1] == {f"net/{collection}": {"w": 1}}


def test_flaxs_own_collections_are_those_that_flax_names():
    names = nnx.variablelib.VariableTypeCache
    # Those that are called as their class were put there by other tests.
    own = {n for n, cls in names.items() if cls.__module__.startswith("flax.")}
    own = {name for name in own if name != names[name].__name__}
    assert {"params", "batch_stats", "cache"} <= own
    assert own <= _layout.FLAXS_OWN, own - _layout.FLAXS_OWN


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"step": 3, "opt_state": {}}, "'opt_state', 'step'"),
        ({"opt": {"mu": {"w": 1}}}, "'opt'"),
    ],
)
def test_a_state_of_training_is_refused_with_a_way_to_pick(more, found):
    tree = {"params": {"w": 1}, "batch_stats": {"m": 2}, **more}
    with pytest.raises(hk_bridge.VariablesError) as caught:
        hk_bridge.to_haiku(tree, name="net")
    names = ["params", "batch_stats"]
    assert str(caught.value) == (
        f"The variables have {found} beside 'params', as a saved state of training "
        f"has. Take the collections alone: write load(path, collection={names}), or "
        f"to_haiku(variables, name=..., collections={names})."
    )
    trees = hk_bridge.to_haiku(tree, name="net", collections=names)
    assert trees == ({"net": {"w": 1}}, {"net/batch_stats": {"m": 2}})


def test_a_collection_that_is_not_there_is_refused():
    with pytest.raises(hk_bridge.VariablesError) as caught:
        hk_bridge.to_haiku({"params": {}}, name="net", collections=["memo"])
    assert str(caught.value) == (
        "The tree has no collection 'memo' on top: it has 'params'. Name some of "
        'these, or write {"params": tree} if it is the parameters alone.'
    )
    with pytest.raises(hk_bridge.VariablesError, match="on top: it is empty"):
        hk_bridge.to_haiku({}, name="net", collections=["memo"])


HELD = {"outer/~/resnet/Conv_0": {"w": 1}, "linear": {"w": 2}, "mlp/~/a": {"w": 1}}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("outer/resnet", "'outer/~/resnet' is the nearest name. Write name='outer/~"),
        ("resnet", "'outer/~/resnet' is the nearest name"),
        ("liner", "'linear' is the nearest name. Write name='linear'."),
        ("quux", "there is 'outer/~/resnet/Conv_0', 'linear', 'mlp/~/a'. Write name="),
        ("mlp", "below it are modules of Haiku's own alone, like 'mlp/~/a'. Read"),
    ],
)
@pytest.mark.parametrize("like", [None, {"params": {"w": 1}}])
def test_a_name_of_nothing_is_refused(name, said, like):
    for trees in ((HELD, {}), ({}, HELD), (HELD, None), (None, HELD)):
        with pytest.raises(hk_bridge.VariablesError) as caught:
            hk_bridge.to_flax(*trees, name=name, like=like)
        start = f"Neither params nor state has anything of a Flax module {name!r}; "
        assert str(caught.value).startswith(start + said)
        assert "no variables, write to_flax(..., like={})." in str(caught.value)
    assert hk_bridge.to_flax(HELD, {}, name=name, like={}) == {}


def test_a_name_of_nothing_in_nothing_is_of_a_module_without_variables():
    for trees in (({}, {}), (None, None), ({}, None)):
        assert hk_bridge.to_flax(*trees, name="net") == {}
    assert hk_bridge.to_flax({"net": {}, "a": {"w": 1}}, {}, name="net") == {
        "params": {}
    }


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
    for where, leaf in _layout.leaves(variables):
        module_name, name = _layout.address("net", where)
        assert trees[where.collection != "params"][module_name][name] == leaf


# Where a leaf is: the same place for whoever walks, looks, writes or spells.


def without_empty_levels(tree):
    kept = {
        key: without_empty_levels(value) if _layout.is_level(value) else value
        for key, value in tree.items()
    }
    return {k: v for k, v in kept.items() if v != {} or not _layout.is_level(v)}


@given(VARIABLES)
def test_a_leaf_is_found_where_it_is(variables):
    for where, leaf in _layout.leaves(variables):
        assert type(where) is Where
        assert _layout.find(variables, where) is leaf


def test_what_is_not_there_is_not_found():
    variables = {"params": {"a": {"w": 1}, 0: 2}}
    nothing = object()
    missing = [
        Where("stats", ("a",)),
        Where("params", ("b",)),
        Where("params", ("a", "v")),
        Where("params", ("a", "w", "x")),  # a leaf is on the way
        Where("params", ("0",)),
    ]
    for where in missing:
        assert _layout.find(variables, where, nothing) is nothing
        assert _layout.find(variables, where) is None
    assert _layout.find(variables, Where("params", (0,))) == 2


def test_a_level_is_found_as_a_leaf_is():
    assert _layout.find({"s": {"a": {"w": 1}}}, Where("s", ("a",))) == {"w": 1}


@pytest.mark.parametrize("deep", [False, True])
def test_boxes_on_the_way_are_open(deep):
    inner = nn.Partitioned(3, (None,))
    tree = {"a": {"w": inner}} if not deep else {"a": Scaled({"w": inner}, "outer")}
    where = Where("params", ("a", "w"))
    assert _layout.find({"params": tree}, where) == 3
    assert list(_layout.leaves({"params": tree})) == [(where, 3)]
    assert list(_layout.below(Where("params", ()), tree)) == [where]


@given(st.one_of(VALUES, TREES))
def test_below_are_the_places_of_leaves(value):
    where = Where("cache", ("a", 0))
    places = list(_layout.below(where, value))
    if value == {} or not _layout.is_level(value):
        assert places == [where]
    else:
        leaves = [place for place, _ in _layout.leaves({"cache": {"a": {0: value}}})]
        assert places == leaves


@given(VARIABLES)
def test_a_map_goes_over_every_leaf_once(variables):
    seen = []
    mapped = _layout.map_leaves(lambda *leaf: seen.append(leaf), variables)
    assert seen == list(_layout.leaves(variables))
    assert [leaf for _, leaf in _layout.leaves(mapped)] == [None] * len(seen)
    assert _layout.map_leaves(lambda where, leaf: leaf, variables) == variables


def test_a_map_of_a_part_knows_where_it_is():
    found = _layout.map_leaves(lambda where, _: where, {"w": 1}, ("stats", "a"))
    assert found == {"w": Where("stats", ("a", "w"))}
    one = _layout.map_leaves(lambda where, _: where, 1, ("stats", "a"))
    assert one == Where("stats", ("a",))


def test_a_map_keeps_boxes():
    variables = {"params": {"w": Scaled(nn.Partitioned(1, ("x",)), "mine"), "b": 2}}
    mapped = _layout.map_leaves(lambda where, leaf: leaf + 1, variables)
    box = Scaled(nn.Partitioned(2, ("x",)), "mine")
    assert mapped == {"params": {"w": box, "b": 3}}


def test_leaves_are_replaced_in_new_dicts():
    box = nn.Partitioned(1, ("x",))
    variables = {"params": {"a": {"w": box, "b": 2}}, "stats": {}}
    new = {Where("params", ("a", "w")): 5, Where("params", ("z",)): 6}
    assert _layout.replace(variables, new) == {
        "params": {"a": {"w": nn.Partitioned(5, ("x",)), "b": 2}},
        "stats": {},
    }
    assert variables["params"]["a"]["w"] is box


def test_a_leaf_is_replaced_by_none():
    where = Where("params", ("w",))
    assert _layout.replace({"params": {"w": 1}}, {where: None})["params"]["w"] is None


@given(VARIABLES)
def test_leaves_inserted_make_the_tree_that_they_are_of(variables):
    tree = {}
    made = _layout.insert(tree, dict(_layout.leaves(variables)))
    assert made is tree
    assert made == without_empty_levels(variables)
    for where, leaf in _layout.leaves(variables):
        assert _layout.find(made, where) is leaf


@pytest.mark.parametrize(
    ("tree", "path", "named"),
    [
        ({"a": 1}, ("a",), "a"),
        ({"a": {}}, ("a",), "a"),
        ({"a": 1}, ("a", "b"), "a"),
        ({"a": 1}, ("a", "b", "c"), "a"),
        ({"a": {"b": {(0, 1): 1}}}, ("a", "b", "c"), "a/b"),
    ],
)
def test_a_place_that_is_taken_is_refused(tree, path, named):
    before = copy.deepcopy(tree)
    message = f"'params', path '{named}' is a leaf as well as a module"
    with pytest.raises(hk_bridge.VariablesError, match=message):
        _layout.insert({"params": tree}, {Where("params", path): 2})
    assert tree == before


def test_a_level_is_made_once():
    variables = {}
    level = _layout.make_level(variables, ("stats", "a", 0))
    assert variables == {"stats": {"a": {0: {}}}}
    level["w"] = 1
    assert _layout.make_level(variables, ("stats", "a", 0)) is level
    assert _layout.make_level(variables, ()) is variables


def test_a_leaf_is_placed_whatever_is_there():
    variables = {}
    for leaf in (1, None, {"b": 2}, 3):
        _layout.place(variables, Where("stats", ("a", "w")), leaf)
        assert variables == {"stats": {"a": {"w": leaf}}}


@given(VARIABLES)
def test_no_two_places_share_a_text(variables):
    spelled = [_layout.spelled(where) for where, _ in _layout.leaves(variables)]
    assert len(set(spelled)) == len(spelled)


def test_a_place_in_one_string():
    assert _layout.spelled(Where("params", ("Dense_0", "kernel"))) == (
        "params/Dense_0/kernel"
    )
    assert _layout.spelled(Where("a/b", ("", 0, "~c"))) == "a%2Fb/%/%i0/%7Ec"


# What is a level, and what is a leaf.


@chex.dataclass
class Moments:
    """A Mapping with str keys, which is a value of its own."""

    mean: Any
    var: Any


@chex.dataclass
class Deep:
    inner: Moments
    rest: Any


LEAVES = {
    "chex dataclass": Moments(mean=1.0, var=2.0),
    "chex dataclass in itself": Deep(inner=Moments(mean=1.0, var=2.0), rest={}),
    "ordered dict": collections.OrderedDict(a=1),
    "empty ordered dict": collections.OrderedDict(),
    "defaultdict": collections.defaultdict(list, a=1),
    "user dict": collections.UserDict(a=1),
    "read-only dict": types.MappingProxyType({"a": 1}),
    "Haiku's mapping": hk.data_structures.to_immutable_dict({"a": {"w": 1}}),
    "tuple keys": {(0, 1): 1},
    "mixed keys": {"a": 1, (0, 1): 2},
    "bool keys": {True: 1},
    "frozen dict with tuple keys": flax.core.FrozenDict({(0, 1): 1}),
}
LEVELS = {
    "empty": {},
    "names": {"a": 1},
    "numbers": {0: {"w": 1}},
    "frozen": flax.core.FrozenDict({"a": {"w": 1}}),
    "frozen in a dict": {"a": flax.core.FrozenDict({"w": 1})},
}


@pytest.mark.parametrize("value", LEAVES.values(), ids=LEAVES)
@pytest.mark.parametrize("deep", [False, True])
def test_what_is_no_level_is_a_leaf(value, deep):
    """It stays the object that it is, there and back, wherever it stands."""
    tree = {"a": {"w": value}} if deep else {"w": value}
    variables = {"params": tree, "stats": {"a": tree}}
    params, state = hk_bridge.to_haiku(variables, name="net")
    kept = params["net/a" if deep else "net"]["w"]
    assert _layout.bare(kept) is value
    kept = state["net/stats/a/a" if deep else "net/stats/a"]["w"]
    assert _layout.bare(kept) is value
    back = hk_bridge.to_flax(params, state, name="net")
    for where, leaf in _layout.leaves(back):
        assert where.path[-1] == "w", where
        assert leaf is value
    assert not _layout.is_level(value)


@pytest.mark.parametrize("value", LEAVES.values(), ids=LEAVES)
def test_a_leaf_in_a_box_is_one(value):
    box = nn.Partitioned(value, (None,))
    variables = {"params": {"w": box}}
    params, state = hk_bridge.to_haiku(variables, name="net")
    assert _layout.bare(params["net"]["w"]) is value
    back = hk_bridge.to_flax(params, state, name="net", like=variables)
    assert type(back["params"]["w"]) is nn.Partitioned
    assert back["params"]["w"].value is value


@pytest.mark.parametrize("value", LEVELS.values(), ids=LEVELS)
def test_what_is_a_level(value):
    params, _ = hk_bridge.to_haiku({"params": {"b": value}}, name="net")
    assert all(type(leaf) is int for b in params.values() for leaf in b.values())
    assert all(name.startswith("net/b") for name in params)
    assert hk_bridge.to_flax(params, {}, name="net") == {"params": {"b": value}}


@pytest.mark.parametrize(
    "make", [types.MappingProxyType, collections.OrderedDict, flax.core.FrozenDict]
)
def test_variables_may_be_any_mapping_of_collections(make):
    plain = {"params": {"a": {"w": nn.Partitioned(1, (None,))}}, "stats": {"b": 2}}
    params, state = hk_bridge.to_haiku(make(plain), name="net")
    assert (params, state) == ({"net/a": {"w": 1}}, {"net/stats": {"b": 2}})
    assert hk_bridge.to_flax(params, state, name="net", like=make(plain)) == plain


@pytest.mark.parametrize(
    "tree", [Moments(mean=1, var=2), collections.OrderedDict(w=1), {(0, 1): 1}]
)
def test_a_collection_is_a_level(tree):
    with pytest.raises(hk_bridge.VariablesError, match="'params' must be a dict with"):
        hk_bridge.to_haiku({"params": tree}, name="net")


def test_haikus_trees_may_be_any_mappings():
    params = hk.data_structures.to_immutable_dict({"net/a": {"w": 1}})
    state = types.MappingProxyType({"net/stats": collections.OrderedDict(b=2)})
    back = hk_bridge.to_flax(params, state, name="net")
    assert back == {"params": {"a": {"w": 1}}, "stats": {"b": 2}}
    assert type(back["params"]["a"]) is type(back["stats"]) is dict


@pytest.mark.parametrize("leaf", [{(0, 1): 1}, collections.OrderedDict(), {"b": 1}, {}])
def test_a_leaf_is_never_filled(leaf):
    """Where a module has the name of a leaf, the caller's own dict stays as it was."""
    before = dict(leaf)
    params = {"net": {"a": leaf}, "net/a": {"w": 2}}
    with pytest.raises(hk_bridge.VariablesError, match="a leaf as well as a module"):
        hk_bridge.to_flax(params, {}, name="net")
    assert leaf == before


@pytest.mark.parametrize("value", LEAVES.values(), ids=LEAVES)
def test_haiku_leaves_whole_what_it_would_take_apart(value):
    """Haiku makes dicts of all Mappings in the trees that it takes and gives."""
    kept = whole.keep(value)
    given = hk.data_structures.to_haiku_dict({"net": {"w": kept}})["net"]["w"]
    assert type(whole.bare(given)) is type(value)
    assert whole.bare(given) == value
    assert isinstance(kept, whole.Whole) == (type(value) is not dict)


@pytest.mark.parametrize("name", ["chex dataclass", "ordered dict", "Haiku's mapping"])
def test_what_is_kept_whole_is_a_tree_for_jax(name):
    kept = whole.keep(LEAVES[name])
    doubled = jax.tree.map(lambda leaf: leaf * 2, kept)
    assert type(whole.bare(doubled)) is type(LEAVES[name])
    twice = [leaf * 2 for leaf in jax.tree.leaves(LEAVES[name])]
    assert jax.tree.leaves(doubled) == twice != []


def test_values_kept_whole_are_equal_if_what_they_hold_is():
    one, two = whole.Whole({"a": 1}), whole.Whole({"a": 1})
    assert one == two
    assert one != whole.Whole({"a": 2})
    assert one != {"a": 1}
    assert repr(one) == "Whole({'a': 1})"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


@pytest.mark.parametrize("value", [1, None, (1, 2), {"a": 1}, {(0, 1): {"b": 2}}])
def test_what_haiku_leaves_alone_is_not_wrapped(value):
    assert whole.keep(value) is value
    assert whole.bare(value) is value


def test_a_value_that_is_a_mapping_lives_in_a_network():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            make = lambda *_: Moments(mean=jnp.zeros([]), var=jnp.ones([]))
            scale = self.param("scale", make)
            seen = self.variable("stats", "seen", make)
            if not self.is_initializing():
                seen.value = jax.tree.map(lambda v: v + x.sum(), seen.value)
            return x * scale.var + seen.value.mean

    key, x = jax.random.key(0), jnp.ones([2, 3])
    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(Net(), name="net")(x))
    params, state = f.init(key, x)
    kept = params["net"]["scale"], state["net/stats"]["seen"]
    assert [type(_layout.bare(leaf)) for leaf in kept] == [Moments, Moments]
    assert len(jax.tree.leaves(params)) == len(jax.tree.leaves(state)) == 2
    variables = Net().init(key, x)
    assert_identical(hk_bridge.to_flax(params, state, name="net"), variables)
    y, state = jax.jit(f.apply)(params, state, None, x)
    theirs, mutated = Net().apply(variables, x, mutable=["stats"])
    assert_identical(y, theirs)
    back = hk_bridge.to_flax({}, state, name="net")
    assert_identical(back["stats"], mutated["stats"])
