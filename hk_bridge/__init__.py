"""Any Flax linen module as a Haiku module, its variables in Haiku's params and state.

The contract in ten lines:

* `FlaxModule(module)` is an `hk.Module`; calling it calls the linen module, wherever a
  Haiku module can be called.
* The collection `params` is in Haiku params, every other one in Haiku state, under
  `net/Dense_0` and `net/batch_stats/BatchNorm_0`; `to_flax` and `to_haiku` convert
  exactly.
* The four keywords `rngs`, `method`, `mutable` and `capture_intermediates` are those of
  `apply`.
* Keys come from Haiku, one for each stream that is used, and none where none is.
* Kept collections change in Haiku state by themselves, and keep their structure.
* A collection into which the module sows lives for one call.
* `init` is one forward pass, bit-identical to `module.init` for equal `rngs`.
* Haiku's creators, getters, setters and policies reach every Flax leaf.
* The compiled program is the native one.

Names are imported when they are first asked for, so that `to_haiku` and `to_flax` load
neither framework.
"""

import importlib

# As `typing` has it, which is not imported: at this moment `python -m hk_bridge` looks
# for modules in the folder where it runs.
TYPE_CHECKING = not __name__

if TYPE_CHECKING:
    from hk_bridge import migrate as migrate
    from hk_bridge import nn as nn
    from hk_bridge import sharding as sharding
    from hk_bridge import testing as testing
    from hk_bridge._core.initializers import initializer as initializer
    from hk_bridge._core.module import FlaxModule as FlaxModule
    from hk_bridge._core.share import share_traces as share_traces
    from hk_bridge._core.wrap import wrap as wrap
    from hk_bridge._errors import ModuleTypeError as ModuleTypeError
    from hk_bridge._errors import NotInitializedError as NotInitializedError
    from hk_bridge._errors import StateStructureError as StateStructureError
    from hk_bridge._errors import VariablesError as VariablesError
    from hk_bridge._layout import to_flax as to_flax
    from hk_bridge._layout import to_haiku as to_haiku

__docformat__ = "google"  # for pdoc
__all__ = [
    "FlaxModule",
    "ModuleTypeError",
    "NotInitializedError",
    "StateStructureError",
    "VariablesError",
    "initializer",
    "migrate",
    "nn",
    "sharding",
    "share_traces",
    "testing",
    "to_flax",
    "to_haiku",
    "wrap",
]
__version__ = "0.2.0"

# The module that has each public name; those that are modules have none.
_HOMES = {
    "FlaxModule": "_core.module",
    "ModuleTypeError": "_errors",
    "NotInitializedError": "_errors",
    "StateStructureError": "_errors",
    "VariablesError": "_errors",
    "initializer": "_core.initializers",
    "share_traces": "_core.share",
    "to_flax": "_layout",
    "to_haiku": "_layout",
    "wrap": "_core.wrap",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, name)}")
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value  # so that it is found without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
