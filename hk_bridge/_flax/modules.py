"""What a linen module is: its kind, its text, its methods, its errors.

Private in Flax, and used here since there is no public way:

* `nn.Module._module_checks`: what `apply` does before it runs a method, whose errors
  have to be Flax's own;
* `flax.linen.module._global_interceptor_stack`: nothing public tells whether somebody
  intercepts methods.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import inspect
import re
import sys
import types
from typing import Any
import weakref

from flax import config
from flax import core
from flax import errors
import flax.linen as nn
from flax.linen import spmd
import jax

from hk_bridge import _errors
from hk_bridge._flax import private
from hk_bridge._flax import text

# What `flax.typing.CollectionFilter` refers to by its name, and does not import.
NAMES_IN_HINTS = {"DenyList": core.DenyList}


def is_class(value: Any) -> bool:
    """Whether `value` is a linen module class."""
    return isinstance(value, type) and issubclass(value, nn.Module)


def _nnx() -> Any:
    """`flax.nnx` if somebody imported it, which takes long; else nothing is of it."""
    return sys.modules.get("flax.nnx")


def is_nnx_class(value: Any) -> bool:
    """Whether `value` is an NNX module class."""
    nnx = _nnx()
    return nnx is not None and isinstance(value, type) and issubclass(value, nnx.Module)


def is_cell(cls: type) -> bool:
    """Whether `cls` is a recurrent cell."""
    return issubclass(cls, nn.RNNCellBase)


def is_call(module: nn.Module, method: Any) -> bool:
    """Whether `method`, as `module.apply` takes it, is the module's own `__call__`."""
    if method is None or isinstance(method, str):
        return method in (None, "__call__")
    function = getattr(method, "__func__", method)
    return callable(module) and function is type(module).__call__


def starts_at_zero(cell: Any) -> bool:
    """Whether the first carry of a recurrent cell needs no key."""
    return getattr(cell, "carry_init", None) is nn.initializers.zeros_init()


def build(cls: Any, args: Any, kwargs: Any) -> nn.Module:
    """An instance of a linen class."""
    built: nn.Module = cls(*args, **kwargs, parent=None)
    return built


def own_attributes(cls: type) -> dict[str, Any]:
    """What the author of `cls` wrote: the attributes that are no fields."""
    fields = getattr(cls, "__dataclass_fields__", {})
    of_flax = (_nnx() if is_nnx_class(cls) else nn).Module
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base not in of_flax.__mro__:
            found.update(vars(base))
    made = {*fields, *_on_every_class(of_flax)}
    return {
        name: value
        for name, value in found.items()
        if name == "__call__" or not (name in made or name.startswith("__"))
    }


@functools.cache
def _on_every_class(base: type) -> frozenset[str]:
    """The attributes that Flax itself puts on the subclasses of `base`, or calls."""
    return frozenset({"setup", *vars(type("Empty", (base,), {}))})


def lacks_key(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a key."""
    return isinstance(error, errors.InvalidRngError)


def lacks_param(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a parameter."""
    wanted = (errors.ScopeParamNotFoundError, errors.ScopeCollectionNotFound)
    return isinstance(error, wanted)


def lacks_variable(error: Exception) -> bool:
    """Whether Flax raised `error` for want of a parameter or another variable."""
    return lacks_param(error) or isinstance(error, errors.ScopeVariableNotFoundError)


def is_immutable(error: Exception) -> bool:
    """Whether Flax raised `error` for a collection that may not change."""
    return isinstance(error, errors.ModifyScopeVariableError)


def without_parent(module: nn.Module) -> nn.Module:
    """`module` as if it had been built outside of all others, its own name undone."""
    automatic = re.fullmatch(rf"{type(module).__name__}_\d+", module.name or "")
    return module.clone(parent=None, name=None if automatic else module.name)


def unbound(module: Any) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """`module` free of any scope, and the variables that it was bound to, if it was.

    Raises:
      ModuleTypeError: `module` is no linen module instance, or has a Flax parent.
    """
    if not isinstance(module, nn.Module):
        if is_class(module):
            raise _errors.class_given(module)
        raise (
            _errors.nnx_class_given(module)
            if is_nnx_class(module)
            else _errors.not_a_module(module)
        )
    if isinstance(module.parent, nn.Module):
        raise _errors.has_parent(module, module.parent)
    if module.scope is not None:
        return module.unbind()
    return module, None


def resolve(module: nn.Module, method: Any) -> Callable[..., Any]:
    """`method` as `module.apply` takes it, as a function of a bound module.

    Raises Flax's own errors for a module or a method that cannot be run.
    """
    if private.module_checks is None:
        nn.Module.apply(module, {}, method=_nothing)
    else:
        private.module_checks(module)
    if method is None:
        method = module.__call__
    elif isinstance(method, str):
        name, method = method, getattr(module, method)
        if not callable(method):
            raise TypeError(
                f"'{type(module).__name__}.{name}' must be a callable, got "
                f"{type(method)}."
            )
        if isinstance(method, nn.Module):  # a submodule: that of the bound module

            def method(bound: Any, *args: Any, **kwargs: Any) -> Any:
                return getattr(bound, name)(*args, **kwargs)

    if isinstance(getattr(method, "__self__", None), nn.Module):
        method = getattr(method, "__func__", method)
    is_function = isinstance(method, types.FunctionType)  # and can be hashed
    if not is_function or method not in _CALLABLE:
        if not callable(method) or not inspect.signature(method).parameters:
            raise errors.ApplyModuleInvalidMethodError(method)
        if is_function:
            _CALLABLE.add(method)
    function: Callable[..., Any] = method
    return function


# Functions that have an argument. To look at their signature takes long.
_CALLABLE: weakref.WeakSet[Any] = weakref.WeakSet()


def context() -> Any:
    """What else of Flax determines a trace: rules for logical axes, and flags."""
    flags = (config.flax_fix_rng_separator, config.flax_preserve_adopted_names)
    return nn.get_logical_axis_rules(), flags


def _nothing(_: Any) -> None:
    """Run by Flax in place of a module, so that it only checks."""


def partition_spec(box: Any) -> jax.sharding.PartitionSpec | None:
    """What a box says of the axes of a mesh, by the rules of the box or in force.

    Without rules, logical names stay as they are. None is of a box of another kind.
    """
    if not hasattr(box, "get_partition_spec"):
        return None
    spec: jax.sharding.PartitionSpec = box.get_partition_spec()
    rules = getattr(box, "rules", None) or nn.get_logical_axis_rules()
    if isinstance(box, nn.LogicallyPartitioned) and rules:
        spec = spmd.logical_to_mesh(spec, rules)
    return spec


def title(module: Any) -> str:
    """The name of the class of `module`, or of the NNX class that it stands for."""
    nnx, cls = _nnx(), type(module)
    if nnx is not None and isinstance(module, nnx.bridge.ToLinen):
        return str(getattr(module.nnx_class, "__name__", cls.__name__))
    return cls.__name__


def describe(module: Any) -> str:
    """`module` in one line: its class, and the fields that are not as by default."""
    return text.short(module, _knows)


def line(title: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """The line `title(*args, **kwargs)`, with modules described as by `describe`."""
    return text.call(text.Built(title, args, kwargs), _knows)


def built(module: Any) -> text.Built:
    """How a linen module was built: the arguments that are not as by default.

    Of an NNX module that is not known."""
    nnx = _nnx()
    if is_nnx_class(type(module)):
        return text.Built(title(module), (), {})
    if nnx is not None and isinstance(module, nnx.bridge.ToLinen):
        return text.Built(title(module), tuple(module.args), module.kwargs)
    shown: dict[str, Any] = {}
    for field in dataclasses.fields(module):
        if not field.init or not field.repr or field.name in ("parent", "name"):
            continue
        value = getattr(module, field.name, None)
        if not text.equal(value, field.default, _knows):
            shown[field.name] = value
    return text.Built(title(module), (), shown)


def _knows(value: Any) -> text.Built | None:
    known = isinstance(value, nn.Module) or is_nnx_class(type(value))
    return built(value) if known else None


def specs(
    module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any
) -> dict[str, Any]:
    """The shapes and dtypes of all variables that `function` makes at init."""
    shapes: dict[str, Any] = jax.eval_shape(
        lambda: nn.Module.init(
            module, jax.random.key(0), *args, method=function, **kwargs
        )
    )
    return shapes
