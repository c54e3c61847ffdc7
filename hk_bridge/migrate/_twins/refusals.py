"""What is refused: layers without a twin, and variables that are not theirs."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku

_linen = _flax.linen
hk = _haiku.native


class TwinError(ValueError):
    """A Flax layer, or a configuration of it, has no exact twin in Haiku.

    >>> from hk_bridge import migrate
    >>> import flax.linen as nn
    >>> try:
    ...     migrate.twin(nn.Conv(4, (3,), padding="CIRCULAR"), {}, name="conv")
    ... except TwinError as error:
    ...     print(str(error).split(",")[0])
    Conv(padding='CIRCULAR') has no exact twin in Haiku
    """


def shown(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{value.dtype}{list(value.shape)}>"
    if isinstance(value, hk.initializers.VarianceScaling):
        return f"hk.initializers.VarianceScaling({value.scale})"
    return str(getattr(value, "__name__", repr(value)))


def listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in arguments.items())


def refused(module: Any, given: str, expected: str) -> TwinError:
    return TwinError(
        f"{given} has no exact twin in Haiku, which would need {expected}. To keep the "
        "Flax layer, write "
        f"hk_bridge.FlaxModule({type(module).__name__}(...), variables=variables)."
    )


def expect(module: Any, field: str, fits: bool, expected: str) -> None:
    if not fits:
        given = listed({field: getattr(module, field)})
        expected = f"{field} to be {expected}"
        raise refused(module, f"{type(module).__name__}({given})", expected)


def expect_leaves(
    module: Any, leaves: Mapping[str, Any], fits: Callable[[Any], bool], expected: str
) -> None:
    for leaf in leaves.values():
        if not fits(leaf.dtype):
            given = f"{type(module).__name__} with {leaf.dtype} leaves"
            raise refused(module, given, expected)


def needs_ndim(module: Any) -> TwinError:
    return TwinError(
        f"The leaves of this twin of {type(module).__name__} have as many axes as its "
        "input. Write twin(..., ndim=4) for an input [N, H, W, C]."
    )


def bad_ndim(module: Any, ndim: Any, least: int) -> TwinError:
    return TwinError(
        f"An input of this {type(module).__name__} has at least {least} axes, but got "
        f"ndim={ndim!r}. Write twin(..., ndim=4) for an input [N, H, W, C]."
    )


def not_a_layer(value: Any) -> _errors.ModuleTypeError:
    given, line = shown(value), "twin(nn.Dense(3), variables, name=...), for example"
    if isinstance(value, type):
        given = f"the class {given}"
        if issubclass(value, _linen.Module):
            line = f"twin({value.__name__}(...), variables, name=...) to build it first"
    return _errors.ModuleTypeError(
        f"twin needs a flax.linen.Module instance, but got {given}. Write {line}."
    )


def misfit(module: Any, key: str, what: str) -> _errors.VariablesError:
    collection, _, path = key.partition("/")
    return _errors.VariablesError(
        f"The variables given for {type(module).__name__} do not fit at collection "
        f"{collection!r}, path {path!r}: {what}. Give those that init returns for a "
        "layer of this configuration."
    )


def no_layer(
    module: Any, leaves: Mapping[str, Any], error: Exception
) -> _errors.VariablesError:
    given = ", ".join(f"{key} {list(leaves[key].shape)}" for key in sorted(leaves))
    says = f"{type(error).__name__}: {str(error).rstrip('.')}"
    return _errors.VariablesError(
        f"The variables given for {type(module).__name__} do not fit. They hold "
        f"{given}, and for an input of such sizes linen raises {says}. Give those that "
        "init returns for a layer of this configuration."
    )


def lacks(which: str, module_name: str, leaf: str) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"to_flax got {which} without {which}[{module_name!r}][{leaf!r}]. Give what "
        f"the network's init or apply returned, or twin.{which}."
    )
