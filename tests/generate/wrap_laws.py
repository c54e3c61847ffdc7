"""Classes that `hk_bridge.wrap` makes, with a generated module inside."""

from typing import Any

import flax.linen as nn
import haiku as hk
import jax

import hk_bridge

from .cases import Case
from .cases import FailsNatively
from .cases import X
from .compare import open_boxes
from .compare import same
from .compare import trace


class Cell(nn.RNNCellBase):
    """A recurrent cell around a module."""

    part: Any

    def __call__(self, carry: Any, x: Any) -> Any:
        y = self.part(x + carry)
        return y * 2.0, y

    def step(self, carry: Any, x: Any) -> Any:
        return self(carry, x)

    @property
    def num_feature_axes(self) -> int:
        return 1

    def initialize_carry(self, key: Any, shape: Any) -> Any:
        return jax.numpy.zeros(shape)


class Silent(nn.Module):
    """A module that is not called, but has a method."""

    part: Any

    def run(self, x: Any) -> Any:
        return self.part(x)


def wrapped_cell(case: Case, run: Any, train: bool = True) -> None:
    """A wrapped cell gives what Flax's gives; its call in Haiku's order."""
    rngs = case.rngs(init=True)
    cell = Cell(case.make(train))
    try:
        start = open_boxes(jax.eval_shape(cell.init, rngs, X, X))
    except Exception as error:
        raise FailsNatively from error
    start = {c: tree for c, tree in start.items() if c not in case.sown}

    def theirs(variables: Any, rngs: Any) -> Any:
        kept = [c for c in variables if c != "params"]
        options = {"mutable": kept, "method": run}
        result, _ = cell.apply(variables, X, X, rngs=rngs, **options)
        return result[::-1] if run is None else result

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)

        def forward(rngs: Any) -> Any:
            net: Any = hk_bridge.wrap(Cell)(case.make(train), name="net")
            return net(X, X, rngs=rngs, method=run)

        f = hk.transform_with_state(forward)
        return f.apply(params, state, None, rngs)[0]

    same(trace(ours, start, case.rngs()), trace(theirs, start, case.rngs()))


def wrapped_class(case: Case, cls: Any) -> None:
    """A wrapped class can be called if Flax's can, and its text says its name."""

    def forward(x: Any) -> Any:
        made = cls(case.make())
        net: Any = hk_bridge.wrap(cls)(case.make(), name="so_called")
        assert callable(net) == callable(made), f"callable: {callable(net)}"
        assert "so_called" in repr(net), f"no name in {net!r}"
        return x

    jax.eval_shape(hk.transform_with_state(forward).init, None, X)
