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
"""

from hk_bridge import migrate as migrate
from hk_bridge import nn as nn
from hk_bridge import sharding as sharding
from hk_bridge import testing as testing
from hk_bridge._errors import ModuleTypeError as ModuleTypeError
from hk_bridge._errors import NotInitializedError as NotInitializedError
from hk_bridge._errors import StateStructureError as StateStructureError
from hk_bridge._errors import VariablesError as VariablesError
from hk_bridge._layout import to_flax as to_flax
from hk_bridge._layout import to_haiku as to_haiku
from hk_bridge._module import FlaxModule as FlaxModule
from hk_bridge._share import share_traces as share_traces
from hk_bridge._wrap import wrap as wrap

__all__ = [
    "FlaxModule",
    "ModuleTypeError",
    "NotInitializedError",
    "StateStructureError",
    "VariablesError",
    "migrate",
    "nn",
    "share_traces",
    "sharding",
    "testing",
    "to_flax",
    "to_haiku",
    "wrap",
]
__version__ = "0.1.0"
