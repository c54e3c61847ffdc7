"""All that is demanded of `flax.nnx`. It takes long to import: not before it is used.

`graph` says what a module is, `streams` has its keys, `run` runs it on a copy, `build`
makes the module of a wrapped class, `seen` shows submodules to hooks, `inner` shares
their traces, `passed` knows what was written.
"""

from hk_bridge._flax.nnx import private as private
from hk_bridge._flax.nnx.attributes import guarded as guarded
from hk_bridge._flax.nnx.build import build as build
from hk_bridge._flax.nnx.build import outline as outline
from hk_bridge._flax.nnx.graph import remembered as remembered
from hk_bridge._flax.nnx.inner import sharing as sharing
from hk_bridge._flax.nnx.modules import annotated as annotated
from hk_bridge._flax.nnx.modules import resolve as resolve
from hk_bridge._flax.nnx.modules import specs as specs
from hk_bridge._flax.nnx.pure import apply as apply
from hk_bridge._flax.nnx.run import run as run
from hk_bridge._flax.nnx.streams import NnxStreams as NnxStreams
