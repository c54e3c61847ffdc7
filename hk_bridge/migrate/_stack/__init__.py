"""Layers side by side, as the layers of one scan, and back."""

from hk_bridge.migrate._stack.stack import stack as stack
from hk_bridge.migrate._stack.stack import unstack as unstack
