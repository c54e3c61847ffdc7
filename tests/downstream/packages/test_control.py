"""That the tests of packages can fail. No package is needed here but Flax and Haiku."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from packages_case import Haiku
from packages_case import Linen
from packages_case import floats
import packages_laws as laws
import packages_refused
import packages_swap
from packages_swap import Layer
import pytest

import hk_bridge
from hk_bridge import testing


class Net(nn.Module):
    """Params, state and dropout."""

    act: Callable[..., Any] = nn.gelu
    momentum: float = 0.9
    rate: float = 0.5

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = self.act(nn.Dense(4)(x))
        x = nn.BatchNorm(use_running_average=False, momentum=self.momentum)(x)
        return nn.Dropout(self.rate, deterministic=False)(x)


LINEN = Linen(Net(), (floats(3, 4),))


def linear_norm(x: Any) -> Any:
    x = hk.LayerNorm(-1, create_scale=True, create_offset=True)(x)
    return hk.Linear(3)(x)


HAIKU = Haiku(hk.transform_with_state(linear_norm), (0.1 * floats(3, 4),))


def broken(_: Any) -> Any:
    return jnp.full([2], jnp.nan)


def unscaled(native: Any, x: Any) -> Layer:
    """A Dense whose results are right and whose gradients are not."""
    stopped = lambda *args, **kwargs: jax.lax.stop_gradient(
        jax.lax.dot_general(*args, **kwargs)
    )
    module = nn.Dense(native.output_size, dot_general=stopped)
    return Layer(module, {"w": "kernel", "b": "bias"})


def test_what_is_the_same_passes() -> None:
    laws.linen_runs(LINEN)
    laws.linen_is_the_same(LINEN)
    laws.haiku_is_the_same(HAIKU, laws.haiku_runs(HAIKU))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Net(act=nn.silu), "outputs +DIFFERS"),
        (Net(momentum=0.8), "state +DIFFERS"),
        (Net(rate=0.4), "program +DIFFERS"),
    ],
    ids=["activation", "momentum", "rate"],
)
def test_another_bridged_module_is_caught(
    other: Net, words: str, monkeypatch: Any
) -> None:
    bridge = lambda module, **kwargs: hk_bridge.FlaxModule(other, **kwargs)
    monkeypatch.setattr(testing, "FlaxModule", bridge)
    with pytest.raises(AssertionError, match=words):
        laws.linen_is_the_same(LINEN)


@pytest.mark.parametrize(
    ("native", "other"),
    [
        (
            hk.LayerNorm,  # with the epsilon of Flax, which is not Haiku's
            lambda native, x: Layer(
                nn.LayerNorm(), {"scale": "scale", "offset": "bias"}
            ),
        ),
        (
            hk.Linear,
            lambda native, x: Layer(
                nn.Dense(native.output_size, use_bias=False), {"w": "kernel", "b": "b"}
            ),
        ),
        (hk.Linear, unscaled),
    ],
    ids=["epsilon", "bias", "gradient"],
)
def test_another_swapped_layer_is_caught(
    native: type, other: Any, monkeypatch: Any
) -> None:
    theirs = laws.haiku_runs(HAIKU)
    monkeypatch.setitem(packages_swap.LAYERS, native, other)
    with pytest.raises(AssertionError):
        laws.haiku_is_the_same(HAIKU, theirs)


def test_a_network_without_a_layer_to_swap_is_caught() -> None:
    net = Haiku(hk.transform_with_state(lambda x: hk.Bias()(x)), (floats(2, 3),))
    with pytest.raises(AssertionError, match="no layer was replaced"):
        laws.haiku_is_the_same(net, laws.haiku_runs(net))


def test_outputs_that_are_not_finite_do_not_count() -> None:
    with pytest.raises(AssertionError):
        laws.haiku_runs(Haiku(hk.transform_with_state(broken), (floats(2),)))


def test_networks_are_found_in_the_source_of_a_package() -> None:
    assert "ResNet" in packages_refused.classes("dm-haiku")
