"""A function in a transform, at init and at apply."""

import haiku as hk
import jax


def in_haiku(forward, *args):
    """What `forward` gives at init and at apply."""
    found, key = [], jax.random.key(0)
    f = hk.transform_with_state(lambda *args: found.append(forward(*args)))
    f.apply(*f.init(key, *args), key, *args)
    return found
