"""All that is demanded of Flax. Nothing else of `hk_bridge` imports it."""

from typing import TYPE_CHECKING
from typing import Any

from flax import linen as linen
from flax import serialization as serialization

from hk_bridge._flax import private as private
from hk_bridge._flax.axes import axes_of as axes_of
from hk_bridge._flax.axes import named as named
from hk_bridge._flax.host import MISSING as MISSING
from hk_bridge._flax.host import Alone as Alone
from hk_bridge._flax.host import Drawing as Drawing
from hk_bridge._flax.host import Host as Host
from hk_bridge._flax.host import Recipe as Recipe
from hk_bridge._flax.host import Record as Record
from hk_bridge._flax.inner import is_intercepted as is_intercepted
from hk_bridge._flax.keys import Key as Key
from hk_bridge._flax.keys import Streams as Streams
from hk_bridge._flax.kinds import annotated as annotated
from hk_bridge._flax.kinds import apply as apply
from hk_bridge._flax.kinds import build_nnx as build_nnx
from hk_bridge._flax.kinds import guarded as guarded
from hk_bridge._flax.kinds import is_nnx as is_nnx
from hk_bridge._flax.kinds import is_of_graph as is_of_graph
from hk_bridge._flax.kinds import nnx_specs as nnx_specs
from hk_bridge._flax.kinds import outline_nnx as outline_nnx
from hk_bridge._flax.kinds import parts as parts
from hk_bridge._flax.kinds import resolve as resolve
from hk_bridge._flax.kinds import run as run
from hk_bridge._flax.kinds import sharing as sharing
from hk_bridge._flax.kinds import specs as specs
from hk_bridge._flax.kinds import streams as streams
from hk_bridge._flax.kinds import unbound as unbound
from hk_bridge._flax.known import is_fixed as is_fixed
from hk_bridge._flax.known import key_of as key_of
from hk_bridge._flax.mesh import explicit_mesh as explicit_mesh
from hk_bridge._flax.mesh import is_about_sharding as is_about_sharding
from hk_bridge._flax.mesh import lacks_mesh as lacks_mesh
from hk_bridge._flax.mesh import with_auto_axes as with_auto_axes
from hk_bridge._flax.modules import NAMES_IN_HINTS as NAMES_IN_HINTS
from hk_bridge._flax.modules import build as build
from hk_bridge._flax.modules import built as built
from hk_bridge._flax.modules import context as context
from hk_bridge._flax.modules import describe as describe
from hk_bridge._flax.modules import is_call as is_call
from hk_bridge._flax.modules import is_cell as is_cell
from hk_bridge._flax.modules import is_class as is_class
from hk_bridge._flax.modules import is_immutable as is_immutable
from hk_bridge._flax.modules import is_nnx_class as is_nnx_class
from hk_bridge._flax.modules import lacks_key as lacks_key
from hk_bridge._flax.modules import lacks_param as lacks_param
from hk_bridge._flax.modules import lacks_variable as lacks_variable
from hk_bridge._flax.modules import line as line
from hk_bridge._flax.modules import own_attributes as own_attributes
from hk_bridge._flax.modules import partition_spec as partition_spec
from hk_bridge._flax.modules import starts_at_zero as starts_at_zero
from hk_bridge._flax.modules import title as title
from hk_bridge._flax.modules import without_parent as without_parent
from hk_bridge._flax.plan import Filter as Filter
from hk_bridge._flax.plan import Outcome as Outcome
from hk_bridge._flax.plan import Plan as Plan
from hk_bridge._flax.plan import Sharing as Sharing
from hk_bridge._flax.plan import in_filter as in_filter
from hk_bridge._flax.plan import mutable_at_init as mutable_at_init
from hk_bridge._flax.plan import with_intermediates as with_intermediates
from hk_bridge._flax.private import are_staged_here as are_staged_here
from hk_bridge._flax.private import is_staged as is_staged
from hk_bridge._flax.run import init as init

# What `FlaxModule` takes. At run time NNX is imported when it is used.
if TYPE_CHECKING:
    from flax import nnx

    AnyGraph = nnx.Module
    AnyModule = linen.Module | nnx.Module
else:
    AnyModule = Any
