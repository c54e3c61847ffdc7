"""The docstrings of the classes that `wrap` makes."""

import inspect
import re
from typing import Any

from hk_bridge import _flax
from hk_bridge import _haiku


def of_class(cls: Any) -> str:
    """The docstring of the Haiku class: Flax's less its examples, and what is ours."""
    name = _haiku.camel_to_snake(cls.__name__)
    text = _of_linen(without_examples(inspect.getdoc(cls) or ""))
    if not text or text.startswith(f"{cls.__name__}("):  # what `dataclass` puts there
        text = f"Flax's {cls.__name__}."
    return f"""{text}

This is a Haiku module, which runs `{full_name(cls)}`.
Its parameters are in Haiku params under its name, by default `{name}`, and for
submodules below it (`{name}/Dense_0`); other collections are in Haiku state
(`{name}/batch_stats`). It takes `variables=` and `transient=`, too, which are
those of `hk_bridge.FlaxModule`."""


def _of_linen(text: str) -> str:
    """Linen's text, in which its methods are called what they are in Haiku's class."""
    methods = "|".join(name for name in vars(_flax.linen.Module) if name[0] != "_")
    return re.sub(f"`({methods})`", r"`flax.linen.Module.\1`", text)


def full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def without_examples(text: str) -> str:
    """A docstring without its doctests, which are of Flax, and what announces them.

    >>> without_examples("Adds.\\n\\nExample::\\n\\n  >>> 1 + 1\\n\\nReturns:\\n  y")
    'Adds.\\n\\nReturns:\\n  y'
    >>> without_examples("It has a\\nstate::\\n\\n  >>> 1 + 1\\nMore.")
    'It has a\\nstate.\\n\\nMore.'
    """
    kept: list[str] = []
    inside: int | None = None  # the indentation of the example that we are in
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip())
        if line.lstrip().startswith(">>>") and inside is None:
            inside = indentation
            while kept and not kept[-1].strip():
                kept.pop()
            if kept and kept[-1].rstrip().endswith(":"):
                lead = kept.pop().rstrip(": ")
                announces = re.search("example|like this", lead, re.IGNORECASE)
                if kept and kept[-1].strip() and not announces:
                    kept.append(f"{lead.rstrip('.')}.")  # the end of a sentence
            kept.append("")
        elif inside is not None and line.strip() and indentation < inside:
            inside = None
        if inside is None:
            kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
