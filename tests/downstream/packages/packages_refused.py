"""Packages and networks that do not count, since they do not run natively."""

# With jax 0.10.2, flax 0.12.8 and dm-haiku 0.0.17, on Python 3.11.
REFUSED = {
    "bax 0.1.12": "pins releases of Haiku and JAX of 2022",
    "coax 0.1.13": "import fails: no module jax.lib.xla_bridge",
    "distrax 0.1.9, rlax 0.1.9": "have no networks of their own",
    "flaxsr 0.0.7": "import downloads weights and needs TensorFlow",
    "haiku-mup 0.1.5": "pins releases of Haiku and JAX of 2022",
    "jraph 0.0.6.dev0": "has no networks of its own: it takes the caller's",
    "numpyro 0.22.0": "has no networks of its own in its wheel",
    "qdax 0.5.0": "needs tensorflow-probability 0.25, which asks JAX for"
    " jax.interpreters.xla.pytype_aval_mappings, and which takes the place of the"
    " nightly that others here need",
    "transformers 4.57.6, T5": "calls jnp.clip(a_max=), which JAX no longer has",
    "vitax 0.0.7, jaxkit 0.0.2": "have NNX networks only; the bridge takes linen",
}
