"""Recurrent cells with the manners of Haiku's."""

import inspect
from typing import Any

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._core import call
from hk_bridge._core import signature


def step(self: Any, inputs: Any, prev_state: Any, *args: Any, **kwargs: Any) -> Any:
    """One step of a linen cell, in Haiku's order of arguments and results."""
    next_state, output = self(prev_state, inputs, *args, **kwargs)
    return output, next_state


_SIGNATURE = signature.with_options(inspect.signature(step), method=None)


class Cell(_haiku.RNNCore):
    """The call and the first state of a recurrent cell."""

    module: Any

    def __call__(self, *args: Any, method: Any = None, **kwargs: Any) -> Any:
        """One step, in Haiku's order of arguments; linen's is `(carry, inputs)`.

        Another method takes and gives what it does natively.

        Args:
          inputs: of one step, `[B, D]`.
          prev_state: what `initial_state` or the step before gave.
          *args, **kwargs: what else the cell takes.
          rngs, method, mutable, capture_intermediates: as in `FlaxModule.__call__`.

        Returns:
          `(output, next_state)`.
        """
        if _flax.is_call(self.module, signature.native(method)):
            method = step
        given = signature.options(kwargs)
        return call.run(self, signature.native(method), args, kwargs, **given)

    __call__.flax_method = "__call__"  # type: ignore[attr-defined]
    __call__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]

    @_haiku.transparent
    def initial_state(self, batch_size: int | None) -> Any:
        """The state before the first step.

        Args:
          batch_size: B of inputs `[B, D]`; None for inputs `[D]`.

        Returns:
          The state that the cell's call takes, arrays `[B, ...]` or `[...]`.

        Raises:
          ValueError: the state depends on more of the input's shape than the batch.
        """
        if self.module.num_feature_axes != 1:
            raise _errors.state_needs_shape(type(self).__name__)
        # The size of the features, here 1, does not matter to the state.
        shape = (1,) if batch_size is None else (batch_size, 1)
        if _flax.starts_at_zero(self.module):
            key = jax.random.key(0)  # of no effect: so none of Haiku's is drawn
        else:
            key = _haiku.next_key()
        return self.module.initialize_carry(key, shape)
