"""All that is demanded of Haiku. Nothing else of `hk_bridge` imports it."""

from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import haiku

from hk_bridge import _layout
from hk_bridge._haiku import private as private
from hk_bridge._haiku.apart import apart as apart
from hk_bridge._haiku.context import at_end as at_end
from hk_bridge._haiku.context import camel_to_snake as camel_to_snake
from hk_bridge._haiku.context import depth as depth
from hk_bridge._haiku.context import has_creators as has_creators
from hk_bridge._haiku.context import has_state_creators as has_state_creators
from hk_bridge._haiku.context import is_flax_over_haiku as is_flax_over_haiku
from hk_bridge._haiku.context import key_source as key_source
from hk_bridge._haiku.context import lift_prefix as lift_prefix
from hk_bridge._haiku.context import next_key as next_key
from hk_bridge._haiku.context import running_init as running_init
from hk_bridge._haiku.context import sees_state as sees_state
from hk_bridge._haiku.context import transforms as transforms
from hk_bridge._haiku.drawing import are_counted as are_counted
from hk_bridge._haiku.drawing import mark as mark
from hk_bridge._haiku.drawing import nothing as nothing
from hk_bridge._haiku.drawing import sequence as sequence
from hk_bridge._haiku.hooks import MISSING as MISSING
from hk_bridge._haiku.hooks import cast as cast
from hk_bridge._haiku.hooks import check_usage as check_usage
from hk_bridge._haiku.initializers import drawing_from as drawing_from
from hk_bridge._haiku.initializers import draws as draws
from hk_bridge._haiku.initializers import identity as identity
from hk_bridge._haiku.initializers import initialize as initialize
from hk_bridge._haiku.initializers import is_class_of_haiku as is_class_of_haiku
from hk_bridge._haiku.initializers import is_for_a_key as is_for_a_key
from hk_bridge._haiku.initializers import is_of_haiku as is_of_haiku
from hk_bridge._haiku.initializers import shapes_alone as shapes_alone
from hk_bridge._haiku.inner import sharing as sharing
from hk_bridge._haiku.ledger import Ledger as Ledger
from hk_bridge._haiku.names import is_of_many as is_of_many
from hk_bridge._haiku.seen import announce as announce
from hk_bridge._haiku.seen import haiku_inside as haiku_inside
from hk_bridge._haiku.seen import is_observed as is_observed
from hk_bridge._haiku.seen import is_stand_in as is_stand_in
from hk_bridge._haiku.seen import name_in_force as name_in_force
from hk_bridge._haiku.seen import observe as observe
from hk_bridge._haiku.seen import texts_wanted as texts_wanted
from hk_bridge._haiku.seen import without_callers as without_callers
from hk_bridge._haiku.stateless import refuse_if_stateless as refuse_if_stateless

INSTANCE = ("_submodules", "_creation_frame_id")  # what modules have, not their class
native = haiku
RNNCore = haiku.RNNCore
if TYPE_CHECKING:  # to which Haiku says that to build a module gives anything
    from haiku._src.module import ModuleMetaclass

    T = TypeVar("T")

    class Built(ModuleMetaclass):
        def __call__(cls: type[T], *args: Any, **kwargs: Any) -> T: ...

    class Module(haiku.Module, metaclass=Built): ...

else:
    Module = haiku.Module
transparent = haiku.transparent


class Empty(Module):
    """Has what Haiku itself puts on every class of modules."""


_layout.register()  # JAX is there
