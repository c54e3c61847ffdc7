"""Lifted classes, lifted functions, and the order of reads and writes."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from recorded import FUNCTIONS
from recorded import LIFTS
from recorded import Body
from recorded import Layer
from recorded import X
from recorded import assert_as_native
from recorded import read
from recorded import write
from recorded import write_the_same

# Lifted classes.


class Twice(nn.Module):
    """Calls one lifted module, below this one, twice."""

    cls: Any

    @nn.compact
    def __call__(self, x):
        layer = self.cls()
        for _ in range(2):
            y = layer(x)
            x = y[0] if isinstance(y, tuple) else y
        return x


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("lift", LIFTS)
def test_lifted_classes(lift, jit, at_first):
    cls = LIFTS[lift](Body, Layer)
    assert_as_native(cls, X, jit=jit, steps=2)


@pytest.mark.parametrize("lift", LIFTS)
def test_lifted_classes_called_twice(lift, at_first):
    cls = LIFTS[lift](Body, Layer)
    assert_as_native(lambda: Twice(cls), X, steps=2)


# Lifted functions, and the order of reads and writes.


def put(m, x):
    """Writes without a look at what there was, right after what came before."""
    m.put_variable("stats", "w", x.sum())
    return x


def set_value(m, x):
    m.w.value = x.sum()
    return x


ORDERS = {
    "read": lambda f: [f(read), put],
    "read, set": lambda f: [f(read), set_value],
    "write": lambda f: [f(write)],
    "write the same": lambda f: [f(write_the_same)],
    "put, read": lambda f: [put, f(read)],
    "put, read, put": lambda f: [put, f(read), put],
    "read, read, put": lambda f: [f(read), f(read), put],
    "write, put": lambda f: [f(write), put],
    "read, write": lambda f: [f(read), f(write)],
}


class InOrder(nn.Module):
    """Does the steps, one after the other, once it has its variables."""

    steps: Any

    def setup(self):
        self.r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        self.w = self.variable("stats", "w", jnp.zeros, [])

    def __call__(self, x):
        for step in () if self.is_initializing() else self.steps:
            x = step(self, x)
        return x + self.w.value


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_order(function, order, at_first):
    steps = tuple(ORDERS[order](FUNCTIONS[function]))
    assert_as_native(lambda: InOrder(steps), X, steps=2)
