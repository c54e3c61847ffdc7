"""The signatures of the classes that `wrap` makes, and of their methods."""

from collections.abc import Collection
import inspect
import typing
from typing import Any

from hk_bridge import _flax


def constructor(cls: Any) -> inspect.Signature:
    """The signature of the Haiku class: Flax's, with `name` and without `parent`."""
    signature = inspect.signature(cls.__init__)
    if cls.__init__ is object.__init__:
        signature = inspect.Signature()
    dropped = ("self", "parent", "name", "rngs")
    try:  # as seen from Flax's file: annotations that are strings mean nothing here
        hints = typing.get_type_hints(
            cls, localns=_flax.NAMES_IN_HINTS, include_extras=True
        )
    except Exception:  # a name that only type checkers see, or that comes later
        hints = {}
    parameters = [
        p.replace(annotation=hints.get(p.name, p.annotation))
        for p in signature.parameters.values()
        if p.name not in dropped
    ]
    name = inspect.Parameter(
        "name", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None
    )
    rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    parameters = [p for p in parameters if p not in rest]
    return inspect.Signature([*parameters, name, *rest])


def with_self(signature: inspect.Signature) -> inspect.Signature:
    """The signature as that of a method, which takes `self` first."""
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    kinds = [p.kind for p in signature.parameters.values()]
    if inspect.Parameter.POSITIONAL_ONLY not in kinds:
        this = this.replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return signature.replace(parameters=[this, *signature.parameters.values()])


# The keywords of a call that are the bridge's, and their defaults.
OPTIONS = {"rngs": None, "mutable": None, "capture_intermediates": False}


def options(kwargs: dict[str, Any], own: Collection[str] = ()) -> dict[str, Any]:
    """Takes the bridge's keywords out of those of a call, but for a method's `own`."""
    return {k: kwargs.pop(k) for k in OPTIONS if k in kwargs and k not in own}


def with_options(signature: inspect.Signature, **more: Any) -> inspect.Signature:
    """The signature with the bridge's keywords, and more with their defaults."""
    added = {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in {**OPTIONS, **more}.items()
        if name not in signature.parameters
    }
    kept = list(signature.parameters.values())
    last = [p for p in kept if p.kind is inspect.Parameter.VAR_KEYWORD]
    first = [p for p in kept if p not in last]
    return signature.replace(parameters=[*first, *added.values(), *last])


def native(method: Any) -> Any:
    """The Flax method of a method of a wrapped class; anything else as it is."""
    return getattr(method, "flax_method", method)
