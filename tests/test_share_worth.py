"""`share_traces`: which calls are asked for their keys, since to ask takes time."""

from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from test_share import KEY
from test_share_inside import Stack
from test_share_inside import X

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _worth
from hk_bridge._core import traces


def report_of(forward):
    """What `share_traces` says of `forward` at apply."""
    f = hk.transform_with_state(forward)
    params, state = _abstract.evaluate(f.init, KEY, X)
    with hk_bridge.share_traces() as report:
        _abstract.evaluate(f.apply, params, state, KEY, X)
    return report


class Two(nn.Module):
    """Calls others."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.LayerNorm()(x))


class HaikuTwo(hk.Module):
    def __call__(self, x):
        return hk.Linear(4)(hk.LayerNorm(-1, True, True)(x))


class NnxTwo(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.norm(x))


class NnxStack(nnx.Module):
    def __init__(self, of, n):
        self.parts = nnx.List([of(nnx.Rngs(i)) for i in range(n)])

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


def haikus(make, n):
    def forward(x):
        for _ in range(n):
            x = make()(x)
        return x

    return forward


def linens(make, n):
    return lambda x: FlaxModule(Stack(lambda i: make(), n), name="net")(x)


def nnxs(make, n):
    return lambda x: FlaxModule(NnxStack(make, n), name="net")(x)


STACKS = pytest.mark.parametrize(
    ("stack", "big", "small"),
    [
        (haikus, HaikuTwo, lambda: hk.Linear(4)),
        (linens, Two, lambda: nn.Dense(4)),
        (nnxs, NnxTwo, lambda rngs: nnx.Linear(4, 4, rngs=rngs)),
    ],
    ids=["haiku", "linen", "nnx"],
)


def whys(report, title):
    return [row.why for row in report.rows if row.title == title]


@STACKS
def test_what_has_a_number_among_many_is_traced_at_the_second(stack, big, small):
    report = report_of(stack(big, 6))
    assert report.shared[big.__name__] == 4
    expected = [_errors.FIRST, _errors.TRACED]
    assert whys(report, big.__name__) == [*expected, *[None] * 4]


@STACKS
def test_what_calls_no_other_is_traced_if_there_are_many(stack, big, small):
    (title,) = report_of(stack(small, 24)).shared
    found = whys(report_of(stack(small, 24)), title)
    few = [_errors.FIRST, *[_errors.FEW] * 6]
    assert found == [*few, *few, _errors.TRACED, *[None] * 9]


@STACKS
def test_what_is_alone_is_not_asked_for_its_key(monkeypatch, stack, big, small):
    forward, asked = stack(big, 1), []
    f = hk.transform_with_state(forward)
    start = _abstract.evaluate(f.init, KEY, X)
    monkeypatch.setattr(traces.forms, "split", lambda tree: asked.append(tree))
    with hk_bridge.share_traces():
        _abstract.evaluate(f.apply, *start, KEY, X)
    assert not asked


def test_one_that_is_called_again_and_again_is_traced_at_the_fourth():
    def forward(x):
        net = FlaxModule(Two(), name="net")
        for _ in range(6):
            x = net(x)
        return x

    first = _errors.FIRST
    expected = [first, _errors.FEW, first, _errors.TRACED, None, None]
    assert whys(report_of(forward), "Two") == expected


def test_what_cannot_be_shared_and_calls_no_other_is_seldom_asked():
    class Scaled(nn.Module):
        by: jax.Array

        @nn.compact
        def __call__(self, x):
            return x * self.param("w", nn.initializers.ones, ()) * self.by

    report = report_of(linens(lambda: Scaled(jnp.ones([])), 16))
    few = [_errors.FEW] * 6
    no = _errors.NO_VALUE
    assert whys(report, "Scaled") == [_errors.FIRST, *few, no, *few, no, few[0]]


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("block", ["block", "block_1", "block_2"], True),
        ("Block_1", ["Block_0", "Block_1", "Block_2"], True),
        ("h2_attention", ["h0_attention", "h1_attention", "h2_attention"], True),
        ("block_1", ["block_1", "block_2", "blocks_3"], False),
        ("a", ["a", "b", "c"], False),
    ],
)
def test_names_that_differ_by_a_number(name, names, expected):
    assert _worth.is_of_many(name, names) is expected
