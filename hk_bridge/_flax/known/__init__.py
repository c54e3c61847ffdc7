"""What is known to be a value: the same wherever its key is equal.

Traces are shared, and shapes remembered, by such keys alone.
"""

from hk_bridge._flax.known.library import full_name as full_name
from hk_bridge._flax.known.values import is_fixed as is_fixed
from hk_bridge._flax.known.values import key_of as key_of
