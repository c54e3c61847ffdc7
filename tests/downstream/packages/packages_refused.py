"""Packages and networks that do not count, and why.

With jax 0.10.2, flax 0.12.8 and dm-haiku 0.0.17, on Python 3.11. A reason that takes an
environment of its own to see, or a download, is in words only: it has no `holds`.
"""

import ast
from collections.abc import Callable
import importlib
import importlib.metadata
from typing import NamedTuple

import jax
import jax.numpy as jnp
from packages_case import installed

MODULES = {
    "flax.linen.Module",
    "haiku.Module",
    "hk.Module",
    "linen.Module",
    "nn.Module",
}


class Refused(NamedTuple):
    """A package, or one network of it, that does not count.

    Attributes:
      package: its name in the index.
      version: the one that was looked at.
      reason: in words.
      holds: whether the reason is true of the package that is installed.
    """

    package: str
    version: str
    reason: str
    holds: Callable[[], bool] | None = None

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def installed(self) -> str | None:
        """The version that is installed, if one is."""
        return installed(self.package)


def classes(package: str) -> list[str]:
    """The classes of a package that derive from Haiku's Module or linen's, by source.

    Examples in a wheel do not count.
    """
    found = []
    for path in importlib.metadata.files(package) or []:
        if path.suffix == ".py" and "example" not in str(path):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases = {ast.unparse(base) for base in node.bases}
                    found += [node.name] * bool(bases & MODULES)
    return found


def coax_does_not_import() -> bool:
    try:
        importlib.import_module("coax")
    except ImportError as error:
        return "xla_bridge" in str(error)
    return False


def t5_does_not_run() -> bool:
    from transformers import T5Config
    from transformers.models.t5 import modeling_flax_t5 as t5

    config = T5Config(vocab_size=17, d_model=8, d_kv=4, d_ff=8, num_layers=1)
    tokens = jnp.ones([1, 3], int)
    net = t5.FlaxT5ForConditionalGenerationModule(config)
    try:
        net.init(jax.random.key(0), tokens, tokens * 0 + 1, tokens, tokens * 0 + 1)
    except TypeError as error:
        return "a_max" in str(error)
    return False


def no_classes(package: str, version: str, reason: str) -> Refused:
    return Refused(package, version, reason, lambda: not classes(package))


REFUSED = [
    Refused("bax", "0.1.12", "pins releases of Haiku and JAX of 2022"),
    Refused(
        "coax",
        "0.1.13",
        "import fails: no module jax.lib.xla_bridge",
        coax_does_not_import,
    ),
    no_classes("distrax", "0.1.9", "has no networks of its own"),
    Refused("flaxsr", "0.0.7", "import downloads weights and needs TensorFlow"),
    Refused("haiku-mup", "0.1.5", "pins releases of Haiku and JAX of 2022"),
    no_classes("jraph", "0.0.6.dev0", "has networks in its examples only"),
    no_classes("numpyro", "0.22.0", "has no networks of its own in its wheel"),
    Refused(
        "qdax",
        "0.5.0",
        "needs tensorflow-probability 0.25, which asks JAX for"
        " jax.interpreters.xla.pytype_aval_mappings, and which takes the place of the"
        " nightly that others here need",
    ),
    no_classes("rlax", "0.1.9", "has no networks of its own"),
    Refused(
        "transformers",
        "4.57.6",
        "T5 calls jnp.clip(a_max=), which JAX no longer has",
        t5_does_not_run,
    ),
]
