"""Scopes that modules share, by `nn.share_scope`."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import pytest
from recorded import X
from recorded import assert_as_native


class Grandchild(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return nn.Dense(4)(x) + w.value


class Child(nn.Module):
    child: Any

    @nn.compact
    def __call__(self, x):
        return self.child(x)


class Shares(nn.Module):
    main_child: Any

    def setup(self):
        nn.share_scope(self, self.main_child)

    def __call__(self, x):
        return self.main_child(x)


class SharesInside(nn.Module):
    def setup(self):
        self.inside = Child(Grandchild())
        nn.share_scope(self, self.inside)

    def __call__(self, x):
        return self.inside(x)


class SharesLate(nn.Module):
    """Makes a variable before its scope is another."""

    def setup(self):
        self.child = Grandchild(name="kid")
        self.w = self.variable("stats", "w_own", jnp.zeros, [])
        nn.share_scope(self, self.child)

    def __call__(self, x):
        if not self.is_initializing():
            self.w.value = self.w.value + 1
        return self.child(x) + self.w.value


class Above(nn.Module):
    cls: Any

    @nn.compact
    def __call__(self, x):
        return self.cls()(x)


SHARES = {
    "external": lambda: Shares(Child(Grandchild())),
    "lifted": lambda: Shares(Child(nn.remat(Grandchild)())),
    "jitted": lambda: Shares(Child(nn.jit(Grandchild)())),
    "inside": SharesInside,
    "late": SharesLate,
    "late_below": lambda: Above(SharesLate),
    "inside_remat": lambda: nn.remat(Above)(SharesInside),
    "inside_jit": lambda: nn.jit(Above)(SharesInside),
    "late_in_jit": lambda: nn.jit(Above)(SharesLate),
    "remat": lambda: Above(nn.remat(SharesLate)),
}


@pytest.mark.parametrize("shares", SHARES)
def test_shared_scopes(shares):
    assert_as_native(SHARES[shares], X, steps=2)
