"""How a Flax path is spelled as a Haiku module name, and back.

Haiku names a module by a slash string (`outer/~/net/Dense_0`); Flax names one by a
tuple of strings of any content, and NNX has numbers in it, too. The spelling keeps Flax
names as they are, so `0`, `block-1` and `Dense_0` stay readable, and percent-encodes
the little that Haiku reads otherwise:

* `/`, its separator, becomes `%2F`; `%` itself becomes `%25`;
* a leading `~`, its mark for methods (`outer/~encode/linear`), becomes `%7E`;
* the empty name becomes a lone `%`;
* the number 0, which is not the name `0`, becomes `%i0`.

So it is total (every string has a spelling) and injective (no two share one), and a
Haiku name that has a `~` part below the prefix belongs to a Haiku module, not to Flax.
"""

import re
from typing import Any

Part = str | int
Path = tuple[Any, ...]  # of parts

_ESCAPED = re.compile("%(25|2F|7E)")
_NUMBER = re.compile("%i(-?[0-9]+)")


def escape(part: Part) -> str:
    """One part of a Flax path as one part of a Haiku name.

    >>> escape("Dense_0"), escape("a/b"), escape("~"), escape(""), escape(0)
    ('Dense_0', 'a%2Fb', '%7E', '%', '%i0')
    """
    if isinstance(part, int):
        return f"%i{part}"
    part = part.replace("%", "%25").replace("/", "%2F")
    if part.startswith("~"):
        part = "%7E" + part[1:]
    return part or "%"


def unescape(part: str) -> Part:
    """The inverse of `escape`.

    Raises:
      ValueError: `escape` never writes `part`.

    >>> unescape("a%2Fb"), unescape("%"), unescape("%i0")
    ('a/b', '', 0)
    """
    if part and "%" not in part and part[0] != "~":
        return part
    number = _NUMBER.fullmatch(part)
    plain: Part
    if number is not None:
        plain = int(number[1])
    else:
        plain = "" if part == "%" else _ESCAPED.sub(lambda m: chr(int(m[1], 16)), part)
    if escape(plain) != part:
        raise ValueError(
            f"{part!r} is not a name that hk_bridge writes. It was to be "
            f"{escape(plain)!r}: "
            "'%' is written '%25', '/' is '%2F', a leading '~' is '%7E' and a number "
            "'%i0'."
        )
    return plain


def join(prefix: str, path: Path) -> str:
    """The Haiku module name of `path` below the module `prefix`.

    >>> join("outer/~/net", ("block-1", "0"))
    'outer/~/net/block-1/0'
    """
    return "/".join((prefix, *map(escape, path)))


def split(prefix: str, name: str) -> Path | None:
    """The inverse of `join`, or None if `name` is not below `prefix`, or Haiku's own.

    >>> split("net", "net/block-1/0"), split("net", "net")
    (('block-1', '0'), ())
    >>> split("net", "net_1") is None
    True
    >>> split("net", "net/~/linear") is None
    True
    """
    if name == prefix:
        return ()
    if not name.startswith(prefix + "/"):
        return None
    parts = name[len(prefix) + 1 :].split("/")
    if any(part.startswith("~") for part in parts):
        return None
    return tuple(map(unescape, parts))
