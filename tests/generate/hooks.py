"""Hooks of Haiku around a network, each a context manager; all note what they see."""

from collections.abc import Iterator
import contextlib
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import jmp

from .cases import is_float

HOOKS: list[Any] = []  # what the hooks were asked


def note(kind: str, context: Any, label: str = "") -> None:
    shape = getattr(context, "original_shape", None)
    dtype = getattr(context, "original_dtype", None)
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else "of a tree"
    HOOKS.append((f"{kind}{label}", context.full_name, shape, str(dtype)))


def floats(function: Any, tree: Any) -> Any:
    """`tree` with `function` of its arrays of floats."""

    def one(leaf: Any) -> Any:
        return function(leaf) if is_float(leaf) else leaf

    return jax.tree.map(one, tree)


def halved(tree: Any) -> Any:
    return floats(lambda v: v * jnp.asarray(0.5, v.dtype), tree)


def cast(tree: Any) -> Any:
    return floats(lambda v: v.astype(jnp.bfloat16), tree)


def stopped(tree: Any) -> Any:
    return jax.tree.map(jax.lax.stop_gradient, tree)


def unchanged(tree: Any) -> Any:
    return tree


def getter(change: Any, label: str = "", **where: bool) -> Any:
    def hook(next_getter: Any, value: Any, context: Any) -> Any:
        note("get", context, label)
        return next_getter(change(value))

    return hk.custom_getter(hook, **where)


def setter(change: Any, label: str = "") -> Any:
    def hook(next_setter: Any, value: Any, context: Any) -> Any:
        note("set", context, label)
        return next_setter(change(value))

    return hk.custom_setter(hook)


def creator(label: str = "", **where: bool) -> Any:
    def hook(next_creator: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        note("create", context, label)
        return next_creator(shape, dtype, init)

    return hk.custom_creator(hook, **where)


def none(cls: type) -> Any:
    """No hook."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def looking(cls: type) -> Iterator[None]:
    """All hooks, which change nothing."""
    with (
        creator(),
        creator(params=False, state=True),
        getter(unchanged),
        getter(unchanged, params=False, state=True),
        setter(unchanged),
    ):
        yield


@contextlib.contextmanager
def nested(cls: type) -> Iterator[None]:
    """All hooks, one in the other: in which order are they asked?"""
    both = {"params": True, "state": True}
    with contextlib.ExitStack() as stack:
        for label in (" outside", " inside"):
            stack.enter_context(creator(label, **both))
            stack.enter_context(getter(halved, label, **both))
            stack.enter_context(setter(unchanged, label))
        yield


def halving_getter(cls: type) -> Any:
    return getter(halved)


def halving_state_getter(cls: type) -> Any:
    return getter(halved, params=False, state=True)


def casting_state_getter(cls: type) -> Any:
    return getter(cast, params=False, state=True)


def freezing_getter(cls: type) -> Any:
    return getter(stopped)


def halving_setter(cls: type) -> Any:
    return setter(halved)


@contextlib.contextmanager
def stacking(cls: type) -> Iterator[None]:
    """Creators stack three of each array, getters take the first of them."""

    def create(
        next_creator: Any, shape: Any, dtype: Any, init: Any, context: Any
    ) -> Any:
        note("create", context)

        def stacked(shape: Any, dtype: Any) -> Any:
            return jax.tree.map(lambda v: jnp.stack([v] * 3), init(shape[1:], dtype))

        return next_creator((3, *shape), dtype, stacked)

    def get(next_getter: Any, value: Any, context: Any) -> Any:
        note("get", context)
        return next_getter(jax.tree.map(lambda v: v[0], value))

    with hk.custom_creator(create), hk.custom_getter(get):
        yield


def own_leaf(cls: type) -> Any:
    """A getter that makes a parameter of its own beside each one."""

    def get(next_getter: Any, value: Any, context: Any) -> Any:
        of_haiku = hasattr(value, "shape")  # no module of Haiku has another leaf
        if context.full_name.split("/")[-1].startswith("gain_") or not of_haiku:
            return next_getter(value)
        note("get", context)
        name = f"gain_{context.name.replace('%', '')}"
        gain = hk.get_parameter(name, [], jnp.float32, jnp.ones)
        return next_getter(floats(lambda v: v * gain.astype(v.dtype), value))

    return hk.custom_getter(get)


def policy(cls: type) -> Any:
    """Mixed precision: parameters in float32, computed in bfloat16."""
    types = {"param_dtype": jnp.float32, "compute_dtype": jnp.bfloat16}
    return hk.mixed_precision.push_policy(
        cls, jmp.Policy(output_dtype=jnp.float32, **types)
    )


# What a hook makes of each parameter.
MAPS = {halving_getter: halved, freezing_getter: stopped}
