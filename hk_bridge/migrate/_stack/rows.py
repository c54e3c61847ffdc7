"""Trees of Haiku and of Flax as rows: where each leaf is, and what is there."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge._layout import names

Module = tuple[str, ...]  # the parts of a name, spelled as Haiku spells them


class At(NamedTuple):
    """Where a leaf is.

    Attributes:
      collection: of Flax; Haiku's trees have none, which is `""`.
      module: the parts of its module's name.
      name: of the leaf there, spelled; None of a module without anything.
    """

    collection: str
    module: Module
    name: str | None

    @property
    def path(self) -> Module:
        """The parts of the name of the leaf, or of the module without anything."""
        return self.module if self.name is None else (*self.module, self.name)

    def inside(self, module: Module) -> "At":
        """The same place inside of `module`."""
        return self._replace(module=(*module, *self.module))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.collection, *self.path)))


Rows = dict[At, Any]


def rows_of(tree: Any) -> Rows:
    """The rows of Haiku's params or state, or of Flax variables; boxes stay closed.

    >>> rows_of({"params": {"layers": {0: {"w": 1.0}}}})
    {At(collection='params', module=('layers', '%i0'), name='w'): 1.0}
    """
    if _layout.are_haikus(tree):
        return dict(_haikus(tree))
    tree = _layout.opened(tree)
    if not _layout.are_variables(tree):
        raise _errors.variables_type(tree)
    rows: Rows = {}
    for collection, inner in tree.items():
        if not _layout.is_level(inner):
            raise _errors.collection_type(collection, inner)
        rows.update(_flaxs(inner, collection, ()))
    return rows


def _haikus(tree: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[At, Any]]:
    for module_name, bundle in tree.items():
        module = tuple(module_name.split("/"))
        if not bundle:
            yield At("", module, None), None
        for name, leaf in bundle.items():
            yield At("", module, name), leaf


def _flaxs(
    level: Mapping[Any, Any], collection: str, module: Module
) -> Iterator[tuple[At, Any]]:
    if not level:
        yield At(collection, module, None), None
    for key, value in level.items():
        part = names.escape(key)
        if _layout.is_level(value):
            yield from _flaxs(value, collection, (*module, part))
        else:
            yield At(collection, module, part), value


def tree_of(rows: Rows, haikus: bool) -> dict[str, Any]:
    """The inverse of `rows_of`, in plain dicts.

    >>> tree = {"params": {"layers": {0: {"w": 1.0}, "0": {}}}}
    >>> tree_of(rows_of(tree), haikus=False) == tree
    True
    """
    tree: dict[str, Any] = {}
    for (collection, module, name), leaf in rows.items():
        if haikus:
            level = tree.setdefault("/".join(module), {})
        else:
            path = (collection, *map(names.unescape, module))
            level = _layout.make_level(tree, path)
        if name is not None:
            level[name if haikus else names.unescape(name)] = leaf
    return tree
