"""A leaf through Haiku's creators and getters.

Private in Haiku (since dm-haiku 0.0.16): `haiku._src.base.param_getter_stack`,
`state_getter_stack` and `state_setter_stack`. Public getters start inside those in
force, and what these give must pass a check of Haiku's that is for its own modules.
That a parameter is missing at apply is told by the text of Haiku's error alone.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
from typing import Any

import haiku as hk
from haiku._src import base
import jax
import jax.numpy as jnp

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge._haiku import private
from hk_bridge._haiku import seen
from hk_bridge._layout import Where

Initializer = Callable[..., Any]
MISSING: Any = object()


class Hooks:
    """Asks Haiku for the leaves of one module.

    Attributes:
      others: the leaves that hooks themselves asked for, as `(module name, name)`.
    """

    def __init__(self, owner: hk.Module, name: str, others: set[tuple[str, str]]):
        self._owner, self._name = owner, name
        self._addresses: dict[Where, tuple[str, str]] = {}
        self._modules: dict[str, hk.Module] = {}
        self.others = others

    def address(self, where: Where) -> tuple[str, str]:
        """Where in Haiku a leaf is. It is asked several times a leaf."""
        if where not in self._addresses:
            self._addresses[where] = _layout.address(self._name, where)
        return self._addresses[where]

    def _inside(self, module_name: str) -> contextlib.AbstractContextManager[None]:
        if module_name not in self._modules:
            made = seen.module_named(self._owner, module_name)
            self._modules[module_name] = made
        return seen.inside(self._modules[module_name])

    def param(self, where: Where, like: Any, init: Initializer, exact: bool) -> Any:
        """What Haiku and its hooks give for a parameter.

        Args:
          like: has the shape and dtype that are asked for, or is no array.
          exact: Haiku is to refuse another shape, not Flax.
        """
        module_name, name = self.address(where)
        shape, dtype = (), None
        if is_array := _abstract.is_array(like):
            shape, dtype = like.shape, like.dtype
        with self._inside(module_name):
            if not base.param_getter_stack and is_array:
                return hk.get_parameter(name, shape, dtype, init)
            bundle = base.current_frame().params.get(module_name, {})
            if like is None and name in bundle:
                return None  # which Haiku takes for no parameter
            dress = _Dress(
                f"{module_name}/{name}", None if exact and is_array else shape
            )
            with self._listening(base.param_getter_stack, dress):
                dressed: Any = hk.get_parameter(name, shape, dtype, _kept(init))
        return dressed.value

    def elsewhere(self, where: Where, spec: Any, draw: Callable[[], Any]) -> Any:
        """A parameter that creators and getters keep; MISSING if nobody does.

        Args:
          spec: has the shape and dtype that are asked for.
          draw: gives the initial value, or raises; Haiku will not store it.
        """
        ran: list[Exception | None] = []

        def init(shape: Any, dtype: Any) -> Any:
            ran.append(None)
            try:
                return cast(draw(), dtype)
            except Exception as error:
                ran.append(error)
                raise

        try:
            return self.param(where, spec, init, True)
        except Exception as error:
            refused = ran and _is_refusal(error, *self.address(where))
            if refused or any(error is own for own in ran):
                return MISSING
            raise

    def state(self, where: Where, like: Any, init: Initializer) -> Any:
        """What Haiku and its hooks give for a leaf of state."""
        module_name, name = self.address(where)
        shape, dtype = (), None
        if _abstract.is_array(like):
            shape, dtype = like.shape, like.dtype
        with self._inside(module_name):
            if not base.state_getter_stack:
                made = hk.get_state(name, shape, dtype or jnp.float32, _kept(init))
                return _layout.bare(made)
            dress = _Dress(f"{module_name}/{name}", shape)
            with self._listening(base.state_getter_stack, dress):
                dressed: Any = hk.get_state(
                    name, shape, dtype or jnp.float32, _kept(init)
                )
        return dressed.value

    def set_state(self, where: Where, value: Any) -> None:
        """Writes one leaf of state, of which setters see the bare value."""
        module_name, name = self.address(where)
        with self._inside(module_name):
            if _layout.keep(value) is value:
                hk.set_state(name, value)
                return
            base.state_setter_stack.pushleft(_keep_what_is_set)
            try:
                hk.set_state(name, value)
            finally:
                base.state_setter_stack.popleft()

    @contextlib.contextmanager
    def _listening(self, stack: Any, dress: "_Dress") -> Iterator[None]:
        """Notes which other leaves are asked for while this one is: not Flax's."""

        def listen(next_getter: Any, value: Any, context: Any) -> Any:
            if context.full_name == dress.full_name:
                return dress.around(next_getter(_layout.bare(value)))
            self.others.add((context.full_name.rpartition("/")[0], context.name))
            return next_getter(value)

        stack.pushleft(listen)
        try:
            yield
        finally:
            stack.popleft()


def check_usage(reads: Any = True) -> None:
    """Raises Haiku's error if parameters are read inside a transform of JAX's own.

    Haiku checks that if `hk.experimental.check_jax_usage` wants it."""
    if reads and private.assert_jax_usage is not None:
        private.assert_jax_usage("get_parameter")


def _is_refusal(error: Exception, module_name: str, name: str) -> bool:
    """Whether this is Haiku's own error for this parameter, made at apply."""
    text = f"Unable to retrieve parameter {name!r} for module {module_name!r}"
    return type(error) is ValueError and str(error).startswith(text)


def _keep_what_is_set(next_setter: Any, value: Any, context: Any) -> Any:
    return _layout.keep(next_setter(value))


def _kept(init: Initializer) -> Initializer:
    """`init`, of values that live in Haiku's trees."""
    return lambda shape, dtype: _layout.keep(init(shape, dtype))


class _Dress:
    """Has what getters give pass Haiku's check of the shape."""

    def __init__(self, full_name: str, shape: Any):
        self.full_name = full_name
        self._shape = shape

    def around(self, value: Any) -> "_Dressed":
        return _Dressed(value, value.shape if self._shape is None else self._shape)


class _Dressed:
    def __init__(self, value: Any, shape: Any):
        self.value, self.shape = value, shape


def cast(value: Any, dtype: Any) -> Any:
    """`value` in `dtype`, as a creator that changes the dtype wants it; a key stays."""
    is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    same = is_key or value.dtype == dtype
    return value if same else jnp.asarray(value).astype(dtype)
