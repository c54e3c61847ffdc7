"""The contract between Flax's door and Haiku's: `_flax.Host`, and fakes of both sides.

A host that is a dict runs modules without Haiku; a run that is made up is settled in
Haiku without Flax."""

import contextlib
import inspect

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge._core.apply import Apply
from hk_bridge._core.init import Init
from hk_bridge._core.side import Options
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Host
from hk_bridge._layout import Where
from hk_bridge.testing import assert_identical

KEY, X = jax.random.key(0), jnp.ones([2, 4])


class Held:
    """A host that keeps the leaves of one module in a dict, as Haiku would."""

    observes = False
    hooked = True

    def __init__(self, leaves=None, rngs=None, late=False):
        self.leaves = {} if leaves is None else leaves
        self.initializing = leaves is None
        self.reads_late = late
        self.drawn = []
        self.events = []
        self.streams = _flax.streams(
            nn.Dense(1), rngs, self.draw, initializing=self.initializing
        )

    def draw(self):
        self.drawn.append(jax.random.fold_in(KEY, len(self.drawn)))
        return self.drawn[-1]

    def param(self, recipe):
        self.events.append(("param", recipe.where))
        if recipe.scope.inside:
            return _flax.MISSING
        if self.initializing:
            self.leaves[recipe.where] = recipe.draw()
        return self.leaves.get(recipe.where, _flax.MISSING)

    def leaf(self, recipe):
        return self.param(recipe)

    def keeps(self, collection):
        return True

    def drawing_from(self, key):
        return contextlib.nullcontext()

    def read_rest(self, variables, path=()):
        self.events.append(("read_rest", path))
        for where, leaf in self.leaves.items():
            if where.collection == "params" and where.path[: len(path)] == path:
                _layout.place(variables, where, leaf)

    def start(self, where, made):
        self.events.append(("start", where))
        return made

    def explain(self, error, where, init_fn=None):
        error.add_note(f"It is about {_layout.spelled(where)}.")

    def observe(self, path, module, method, run, args, kwargs):
        self.events.append(("observe", path, method))
        return run(*args, **kwargs)


def run(module, host, *args, mutable=True, **kwargs):
    """The outcome of the module on what the host holds; late, but for params."""
    late = {w for w in host.leaves if host.reads_late and w.collection == "params"}
    read = {where: leaf for where, leaf in host.leaves.items() if where not in late}
    variables = _layout.insert({"params": {}} if late else {}, read)
    plan = _flax.Plan(module, type(module).__call__, mutable)
    return _flax.run(plan, variables, host, args, kwargs)


class Scanned(nn.Module):
    """A BatchNorm for each of three steps, one after the other."""

    @nn.compact
    def __call__(self, x):
        step = lambda norm, x: (norm(x), None)
        lifted = nn.scan(
            step,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=3,
        )
        return lifted(nn.BatchNorm(use_running_average=False), x)[0]


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


MODULES = {
    "layers": nn.Sequential(
        [nn.Dense(4), nn.BatchNorm(use_running_average=False), nn.Dense(3)]
    ),
    "remat": nn.remat(nn.BatchNorm)(use_running_average=False),
    "scan": Scanned(),
    "jit": nn.jit(nn.BatchNorm)(use_running_average=False),
}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("late", [False, True])
def test_a_dict_can_be_the_host(module, late):
    expected = module.init(KEY, X)
    host = Held(rngs={"params": KEY})
    made = run(module, host, X, mutable=nn.DenyList("intermediates"))
    assert_identical(made.variables, expected)
    leaves = dict(_layout.leaves(made.variables))
    assert made.record.made == {w for w in leaves if w.collection == "batch_stats"}

    applied = run(module, Held(leaves, late=late), X, mutable=["batch_stats"])
    y, mutated = module.apply(expected, X, mutable=["batch_stats"])
    assert_identical(applied.output, y)
    assert_identical(applied.mutated(["batch_stats"]), mutated)
    assert applied.record.wrote == made.record.made
    assert not applied.record.made


@pytest.mark.parametrize(
    "lift", [lambda c: c, nn.remat, nn.jit], ids=["plain", "remat", "jit"]
)
def test_what_is_only_read_is_not_recorded(lift):
    module = lift(nn.BatchNorm)(use_running_average=True)
    leaves = dict(_layout.leaves(module.init(KEY, X)))
    outcome = run(module, Held(leaves), X)
    assert outcome.record == _flax.Record()


def test_a_host_that_reads_late_is_asked_in_the_order_of_the_module():
    leaves = dict(_layout.leaves(nn.Sequential([nn.Dense(4)]).init(KEY, X)))
    host = Held(leaves, late=True)
    outcome = run(nn.Sequential([nn.Dense(4)]), host, X, mutable=False)
    names = [where.path for kind, where in host.events if kind == "param"]
    assert names == [("layers_0", "kernel"), ("layers_0", "bias")]
    assert dict(_layout.leaves(outcome.variables)) == leaves


def test_a_host_is_asked_for_all_before_a_lifted_transform_takes_them():
    module = nn.remat(nn.Dense)(4)
    leaves = dict(_layout.leaves(module.init(KEY, X)))
    host = Held(leaves, late=True)
    run(module, host, X, mutable=False)
    assert [event[0] for event in host.events] == ["read_rest"] * len(host.events) != []


def test_a_key_is_drawn_when_it_is_used():
    leaves = dict(_layout.leaves(nn.Dense(4).init(KEY, X)))
    host = Held(leaves)
    run(nn.Dense(4), host, X)
    assert not host.drawn
    host = Held({})
    outcome = run(Noisy(), host, X)
    assert len(host.drawn) == 1
    expected = Noisy().apply({}, X, rngs={"noise": host.drawn[0]})
    assert_identical(outcome.output, expected)


def test_what_is_missing_is_flaxs_own_error_which_the_host_explains():
    with pytest.raises(Exception, match="Scope") as native:
        nn.Dense(4).apply({}, X)
    with pytest.raises(type(native.value)) as ours:
        run(nn.Dense(4), Held({}), X, mutable=False)
    assert str(ours.value) == str(native.value)
    assert ours.value.__notes__ == ["It is about params/kernel."]


def test_a_host_that_observes_runs_the_methods_of_submodules():
    host = Held(rngs={"params": KEY})
    host.observes = True
    run(nn.Sequential([nn.Dense(4), nn.Dense(3)]), host, X)
    seen = [event[1:] for event in host.events if event[0] == "observe"]
    assert seen == [(("layers_0",), "__call__"), (("layers_1",), "__call__")]


# Who can be a host.


def members(cls):
    """The members of a Protocol, and their signatures if they are methods."""
    methods = {
        name: inspect.signature(value)
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    properties = [n for n, v in vars(cls).items() if isinstance(v, property)]
    return {**dict.fromkeys([*cls.__annotations__, *properties]), **methods}


def hosts():
    """An instance of each class that is a host."""
    found = [Held({}), Alone(_flax.streams(nn.Dense(1), None, None, True))]

    def forward():
        net = FlaxModule(nn.Dense(1))
        for cls in (Init, Apply):
            ledger = _haiku.Ledger(net, net._others, None)
            found.append(
                cls(net, ledger, Options(None, None, False), net._streams(None))
            )

    hk.transform(forward).init(KEY)
    return found


@pytest.mark.parametrize("host", hosts(), ids=lambda host: type(host).__name__)
def test_hosts_have_what_scopes_ask_for(host):
    wanted = members(Host)
    assert {"streams", "initializing", "reads_late", "param", "observe"} <= set(wanted)
    for name, signature in wanted.items():
        assert hasattr(host, name), name
        if signature is None:
            continue
        parameters = [p for p in signature.parameters.values() if p.name != "self"]
        required = [None for p in parameters if p.default is p.empty]
        own = inspect.signature(getattr(host, name))
        own.bind(*required)
        own.bind(*[None] * len(parameters))


# A run that is made up, settled in Haiku.


def settled(record, variables, state):
    """Haiku's state after an apply whose run, of no module, gave these."""

    def forward():
        net = FlaxModule(nn.BatchNorm(use_running_average=False), name="net")
        ledger = _haiku.Ledger(net, net._others, None)
        side = Apply(net, ledger, Options(None, None, False), net._streams(None))
        side.settle(_flax.Outcome(None, variables, record))

    return hk.transform_with_state(forward).apply({}, state, None)[1]


STATE = {"net/batch_stats": {"mean": jnp.zeros(2), "var": jnp.ones(2)}}
MEAN, VAR = (Where("batch_stats", (name,)) for name in ("mean", "var"))


def test_haiku_holds_what_the_record_says_was_written():
    other = {"batch_stats": {"mean": jnp.full(2, 5.0), "var": jnp.full(2, 6.0)}}
    after = settled(_flax.Record(wrote={MEAN}), other, STATE)
    assert_identical(after["net/batch_stats"]["mean"], jnp.full(2, 5.0))
    assert after["net/batch_stats"]["var"] is STATE["net/batch_stats"]["var"]


def test_haiku_keeps_all_if_nothing_was_written():
    other = {"batch_stats": {"mean": jnp.full(2, 5.0), "var": jnp.full(2, 6.0)}}
    after = settled(_flax.Record(), other, STATE)
    for name, leaf in STATE["net/batch_stats"].items():
        assert after["net/batch_stats"][name] is leaf


def test_a_leaf_that_is_gone_or_new_is_refused():
    record = _flax.Record(wrote={MEAN, VAR})
    with pytest.raises(hk_bridge.StateStructureError, match="var"):
        settled(record, {"batch_stats": {"mean": jnp.zeros(2)}}, STATE)
    new = Where("batch_stats", ("new",))
    tree = {"batch_stats": {**STATE["net/batch_stats"], "new": jnp.zeros(2)}}
    with pytest.raises(hk_bridge.StateStructureError, match="new"):
        settled(_flax.Record(made={new}), tree, STATE)
