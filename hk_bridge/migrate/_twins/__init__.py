"""Haiku's own layers with the weights of Flax's, where the mathematics is the same.

`layers` has `twin`, and `rows` the layers that have one. `kernels`, `norms`, `lstm` and
`attention` have the plans of these: which leaves become which, and how.
"""

from hk_bridge.migrate._twins.layers import Twin as Twin
from hk_bridge.migrate._twins.layers import twin as twin
from hk_bridge.migrate._twins.refusals import TwinError as TwinError
