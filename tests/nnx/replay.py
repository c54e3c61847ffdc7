"""What a call of a bridged NNX module is held to: the same call in Flax alone."""

from typing import Any

from flax import nnx
import haiku as hk


def replayed(module: Any, *args: Any, keys: Any = None, **kwargs: Any) -> Any:
    """The output of a copy of `module` whose streams are seeded with `keys`."""
    copy = nnx.clone(module)
    nnx.reseed(copy, policy="match_shape", **(keys or {}))
    return copy(*args, **kwargs)


def keys_of(key: Any, count: int) -> list[Any]:
    """The keys that Haiku gives one after another."""
    sequence = hk.PRNGSequence(key)
    return [next(sequence) for _ in range(count)]


def captured(module: Any, *args: Any) -> tuple[Any, Any]:
    """The output of a copy of `module`, and what it sowed, as nested dicts."""
    copy = nnx.clone(module)
    if hasattr(nnx, "capture"):
        output, sown = nnx.capture(copy, nnx.Intermediate)(*args)
    else:  # of Flax 0.12.2
        output = copy(*args)
        sown = nnx.pop(copy, nnx.Intermediate)
    return output, nnx.to_pure_dict(sown)


def pure(module: Any, *types: Any) -> Any:
    """The values of the Variables of these types, as nested dicts."""
    return nnx.to_pure_dict(nnx.state(module, *types))
