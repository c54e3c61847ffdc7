"""`hk.experimental.flax.lift`, asked as the laws ask a `FlaxModule`.

What differs only in spelling is translated here, so that `lift` fails a law for what it
does and not for how it is called. What it does is left alone.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any
from unittest import mock

from catalogue import Case
import flax.linen as nn
import haiku as hk
import jax

import hk_bridge

Tree = Any
Bundles = Mapping[str, Mapping[str, Any]]

_KEYS = [jax.random.key(i) for i in range(8)]  # made here, not in a traced program
_TOP = "/~"  # ends the name under which lift keeps the leaves at the top of a tree


@contextlib.contextmanager
def asked(case: Case) -> Iterator[Case]:
    """The case with `lift` for a bridge, while the laws speak its language.

    `lift` keeps sown collections in state, as `module.init` returns them: it is held to
    all that Flax returns, so the case names none to be left out.
    """
    own = hk.transform_with_state
    names: dict[str, str] = {}

    def transform(function: Callable[..., Any]) -> hk.TransformedWithState:
        respelled = _Respelled(own(function), names)
        return hk.TransformedWithState(respelled.init, respelled.apply)

    with (
        mock.patch.object(hk, "transform_with_state", transform),
        # One law builds a module around the case's, and its bridge, itself.
        mock.patch.object(hk_bridge, "FlaxModule", lifted),
    ):
        yield dataclasses.replace(case, bridge=lifted, sown=())


def lifted(module: nn.Module, *, name: str) -> Callable[..., Any]:
    """`lift(module, name=name)`, to be called as a `FlaxModule` is.

    `method` goes on to Flax. `lift` has no `mutable`: all state may change. At init it
    draws the key for `params` from Haiku if the call gives none; the laws give Haiku no
    keys, so there is one here, another for each call as Haiku's would be.
    """
    call = hk.experimental.flax.lift(module, name=name)
    keys = iter(_KEYS)

    def run(
        *args: Any,
        rngs: Any = None,
        method: Any = None,
        mutable: Any = None,
        **kwargs: Any,
    ) -> Any:
        del mutable
        given = {"rngs": rngs, "method": method}
        kwargs |= {key: value for key, value in given.items() if value is not None}
        if hk.running_init() and "params" not in (rngs or {}):
            with hk.with_rng(next(keys)):
                return call(*args, **kwargs)
        return call(*args, **kwargs)

    return run


class _Respelled:
    """A transform of lifted modules, with its leaves where `FlaxModule` has them.

    Leaves at the top of a tree are in `net` and not in `net/~`, and boxes are open.
    """

    def __init__(self, native: hk.TransformedWithState, names: dict[str, str]) -> None:
        self._native = native
        self._names = names  # of lift, by the names without its ending

    def init(self, *args: Any, **kwargs: Any) -> tuple[Bundles, Bundles]:
        params, state = self._native.init(*args, **kwargs)
        return self._ours(params), self._ours(state)

    def apply(
        self, params: Bundles, state: Bundles, *args: Any, **kwargs: Any
    ) -> tuple[Tree, Bundles]:
        params, state = self._lifts(params), self._lifts(state)
        output, state = self._native.apply(params, state, *args, **kwargs)
        return output, self._ours(state)

    def _ours(self, bundles: Bundles) -> Bundles:
        self._names |= {name.removesuffix(_TOP): name for name in bundles}
        bundles = {name.removesuffix(_TOP): bundle for name, bundle in bundles.items()}
        return nn.unbox(bundles)

    def _lifts(self, bundles: Bundles) -> Bundles:
        return {self._names[name]: bundle for name, bundle in bundles.items()}
