"""`hk.experimental.flax.lift`, asked as the laws ask a `FlaxModule`.

What differs only in spelling is translated here, so that `lift` fails a law for what it
does and not for how it is called. What it does is left alone.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import itertools
from typing import Any
from unittest import mock

from catalogue import Case
import flax.linen as nn
import haiku as hk
import jax
import laws

import hk_bridge
from hk_bridge._layout import names as _names

Tree = Any
Bundles = Mapping[str, Mapping[str, Any]]

_KEYS = [jax.random.key(i) for i in range(8)]  # made here, not in a traced program


@contextlib.contextmanager
def asked(case: Case) -> Iterator[Case]:
    """The case with `lift` for a bridge, while the laws speak its language.

    `lift` keeps sown collections in state, as `module.init` returns them: it is held to
    all that Flax returns, so the case names none to be left out.
    """
    own = hk.transform_with_state
    with mock.patch.object(hk, "transform_with_state", lambda f: respelled(own(f))):
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


def respelled(lifts: hk.TransformedWithState) -> hk.TransformedWithState:
    """A transform of one lifted module, whose leaves are where a `FlaxModule` has them.

    `lift` keeps those at the top of a tree in `net/~` and not in `net`, and boxes shut.
    """

    def init(*args: Any, **kwargs: Any) -> tuple[Bundles, Bundles]:
        return _from_lift(*lifts.init(*args, **kwargs))

    def apply(
        params: Bundles, state: Bundles, *args: Any, **kwargs: Any
    ) -> tuple[Tree, Bundles]:
        output, new = lifts.apply(*_to_lift(params, state), *args, **kwargs)
        return output, _from_lift({}, new)[1]

    return hk.TransformedWithState(init, apply)


def _from_lift(params: Bundles, state: Bundles) -> tuple[Bundles, Bundles]:
    name = _name(params, state)
    trees = map(_escaped, (params, state))  # lift keeps a slash in the name of a leaf
    variables = hk_bridge.to_flax(*trees, name=name, like={})
    return hk_bridge.to_haiku(variables, name=name, collections=variables)


def _escaped(bundles: Bundles) -> Bundles:
    return {
        module: {_names.escape(name): leaf for name, leaf in bundle.items()}
        for module, bundle in bundles.items()
    }


def _to_lift(params: Bundles, state: Bundles) -> tuple[Bundles, Bundles]:
    name = _name(params, state)
    variables = hk_bridge.to_flax(params, state, name=name)

    def flat(prefix: str, collection: str) -> Bundles:
        bundles = hk.experimental.flax.flatten_flax_to_haiku(variables[collection])
        return {f"{prefix}/{module}": bundle for module, bundle in bundles.items()}

    lifts: dict[str, Any] = {}
    for collection in variables.keys() - {"params"}:
        lifts |= flat(f"{name}/{collection}", collection)
    return flat(name, "params") if "params" in variables else {}, lifts


def _name(*trees: Bundles) -> str:
    """The full name of the module, which ends in the one that the laws give it."""
    for module_name in itertools.chain(*trees):
        parents, _, _ = f"/{module_name}/".partition(f"/{laws.NAME}/")
        return f"{parents}/{laws.NAME}".strip("/")
    return laws.NAME  # nothing is kept
