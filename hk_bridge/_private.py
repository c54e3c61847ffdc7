"""Private symbols of other libraries, any of which may be gone in the next release.

Without some the bridge only takes longer: those are `optional`, and None where they are
gone. Without the others it is wrong: those are required, by an error that says what to
install, when the door to the library opens. That is when `FlaxModule` is first asked
for; `to_haiku` and `to_flax` need none.

A symbol is spelled as an entry point is: `flax.core.scope:Scope.push`.
"""

import functools
import importlib
import importlib.metadata
from typing import Any
import warnings

from hk_bridge import _errors

# By the name that is imported: what is installed, the oldest and the newest release
# that the tests ran with.
TESTED = {
    "flax": ("flax", "0.12.2", "0.12.12"),
    "haiku": ("dm-haiku", "0.0.16", "0.0.17"),
    "jax": ("jax", "0.8.2", "0.12.0"),
}

# For tests: symbols to do without, as if a release had dropped them.
hidden: set[str] = set()


def find(symbol: str) -> Any:
    """A symbol, or None if it is gone.

    >>> find("json.decoder:JSONDecoder.decode").__name__
    'decode'
    >>> find("json.decoder:gone") is find("json.gone:gone") is None
    True
    """
    module, _, path = symbol.partition(":")
    try:
        home = None if symbol in hidden else importlib.import_module(module)
        return functools.reduce(getattr, path.split("."), home)
    except (ImportError, AttributeError):
        return None


def optional(symbol: str, cost: str) -> Any:
    """A symbol, or None and a warning if it is gone.

    Args:
      cost: what takes longer then.
    """
    found = find(symbol)
    if found is None:
        text = _errors.slower_without(symbol, cost, *_release(symbol))
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return found


def require(*symbols: str) -> None:
    """Raises an ImportError for a symbol that is gone."""
    for symbol in symbols:
        if find(symbol) is None:
            raise _errors.wrong_without(symbol, *_release(symbol))


def _release(symbol: str) -> tuple[str, str, str, str]:
    """Of the package that has `symbol`: its name, releases that work, and this one."""
    name, oldest, newest = TESTED[symbol.partition(".")[0]]
    return name, oldest, newest, importlib.metadata.version(name)
