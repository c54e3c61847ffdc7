"""All that is demanded of Haiku. Nothing else of `hk_bridge` imports it."""

import haiku

from .apart import apart as apart
from .apart import can_close as can_close
from .context import camel_to_snake as camel_to_snake
from .context import depth as depth
from .context import has_creators as has_creators
from .context import has_state_creators as has_state_creators
from .context import is_flax_over_haiku as is_flax_over_haiku
from .context import key_source as key_source
from .context import lift_prefix as lift_prefix
from .context import next_key as next_key
from .context import running_init as running_init
from .context import sees_state as sees_state
from .ledger import MISSING as MISSING
from .ledger import Ledger as Ledger
from .ledger import cast as cast
from .seen import announce as announce
from .seen import haiku_inside as haiku_inside
from .seen import is_observed as is_observed
from .seen import name_in_force as name_in_force
from .seen import observe as observe
from .seen import texts_wanted as texts_wanted
from .seen import without_callers as without_callers
from .stateless import refuse_if_stateless as refuse_if_stateless

INSTANCE = ("_submodules", "_creation_frame_id")  # what modules have, not their class
native = haiku
Module = haiku.Module
RNNCore = haiku.RNNCore
transparent = haiku.transparent


class Empty(Module):
    """Has what Haiku itself puts on every class of modules."""
