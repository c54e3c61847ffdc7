"""The leaves of one bridged module in Haiku: the only reader, and the only writer.

Leaves are made, read and written through `hk.get_parameter`, `hk.get_state` and
`hk.set_state`, so Haiku's creators, getters and setters see each of them; where none is
in force, what is stored is taken as it is, and parameters are put where Haiku does.

Private in Haiku (since dm-haiku 0.0.16; `tests/test_doors.py` names each):

* `haiku._src.base.current_frame` and of it `params` and `state`: public functions copy
  all params of the transform, at every call;
* `haiku._src.base.param_getter_stack`, `state_getter_stack`: who is in force.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import haiku as hk
from haiku._src import base

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge._haiku import hooks
from hk_bridge._haiku import seen
from hk_bridge._haiku.context import has_creators
from hk_bridge._haiku.hooks import MISSING
from hk_bridge._haiku.hooks import Hooks
from hk_bridge._haiku.hooks import cast
from hk_bridge._haiku.names import below
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where
from hk_bridge._layout import names

Initializer = Callable[..., Any]


class Ledger:
    """The leaves of one module, while it is called.

    Args:
      owner: the module.
      others: leaves below its name that are known to be no Flax module's; what hooks
        ask for comes in.
      made: the leaves that are the Flax module's; None for all others below its name.

    Attributes:
      name: under which they are filed: that in force, as for Haiku's own modules.
      values: the leaves that were read or made, as Haiku's hooks gave them.
    """

    def __init__(
        self, owner: hk.Module, others: set[tuple[str, str]], made: set[Where] | None
    ):
        self.owner = owner
        self.name = seen.name_in_force(owner)
        self.values: dict[Where, Any] = {}
        self._hooks = Hooks(owner, self.name, others)
        self._late: dict[Where, Any] = {}
        self._waits = bool(base.param_getter_stack)
        self._empty: list[tuple[str, ...]] = []  # levels, the collection first
        frame: Any = base.current_frame()
        for where, value in self._stored(frame.params, "params"):
            if made is not None and where not in made:
                continue
            if self._waits:
                self._late[where] = _layout.bare(value)
            else:
                self.values[where] = _layout.bare(value)
        for where, pair in self._stored(frame.state, "state"):
            if made is None or where in made:
                self.values[where] = self._read_state(where, pair)
        hooks.check_usage(self.values or self._late)
        self._drop_others()

    def _stored(self, bundles: Any, kind: str) -> Iterator[tuple[Where, Any]]:
        for module_name in below(self.name, bundles, kind):
            path = names.split(self.name, module_name)
            if path is None or (kind == "state" and not path):
                continue  # of a Haiku module
            collection, *rest = level = (PARAMS, *path) if kind == "params" else path
            bundle = list(bundles[module_name].items())
            if not bundle:
                self._empty.append(level)
            for name, value in bundle:
                yield Where(collection, (*rest, names.unescape(name))), value

    # Reading.

    @property
    def reads_late(self) -> bool:
        """Whether there are parameters that are read when they are asked for.

        A getter is told the shape that is asked for, which is known only then."""
        return self._waits

    @property
    def collections(self) -> set[str]:
        """The collections that there are."""
        held = [*self.values, *self._late]
        return {w.collection for w in held} | {level[0] for level in self._empty}

    def variables(self, without: Iterable[str] = ()) -> dict[str, Any]:
        """All that was read, as Flax takes it. Containers are new; arrays are not.

        Args:
          without: collections to leave out.
        """
        skipped = frozenset(without)
        kept = {
            where: _abstract.copied(value)
            for where, value in self.values.items()
            if where.collection not in skipped
        }
        late: dict[str, Any] = {PARAMS: {}} if self._late else {}
        variables = _layout.insert(late, kept)
        for level in self._empty:
            if not (self._waits and level[0] == PARAMS):  # those are read late as well
                _layout.make_level(variables, level)
        return {c: tree for c, tree in variables.items() if c not in skipped}

    def param(self, where: Where, spec: Callable[[], Any]) -> Any:
        """A stored parameter that was not read yet, or MISSING.

        Args:
          spec: gives the shape and dtype that are asked for.
        """
        if where in self._late:
            return self._read_param(where, spec())
        size = len(where.path)
        below = [w for w in self._late if w.path[:size] == where.path]
        empty = [e for e in self._empty if e[: size + 1] == (PARAMS, *where.path)]
        if not below and not empty:
            return MISSING
        asked, tree = {PARAMS: spec()}, self._empty_tree(empty, size)
        for part in below:
            rest = Where(PARAMS, part.path[size:])
            like = _layout.find(asked, rest)
            _layout.insert(tree, {rest: self._read_param(part, like)})
        return tree[PARAMS]

    def take(self, where: Where, value: Any) -> None:
        """Takes over a leaf that another ledger read or made."""
        self._late.pop(where, None)
        self.values[where] = value

    def _empty_tree(self, levels: Iterable[Any], size: int) -> dict[str, Any]:
        """The empty levels below a parameter whose path has `size` parts."""
        tree: dict[str, Any] = {}
        for level in levels:
            _layout.make_level(tree, (PARAMS, *level[size + 1 :]))
        return tree

    def read_rest(self, variables: dict[str, Any], path: names.Path = ()) -> None:
        """Puts the parameters below `path` that were not read yet into `variables`.

        They are read by the shapes in which they are stored. What code has put there
        without a look at what was there before stays."""
        level, size = (PARAMS, *path), len(path)
        late = [where for where in self._late if where.path[:size] == path]
        read = {where: self._read_param(where, None) for where in late}
        self._drop_others()
        for where, value in read.items():
            new = _layout.find(variables, where, MISSING) is MISSING
            if new and where in self.values:
                _layout.insert(variables, {where: _abstract.copied(value)})
        for empty in self._empty:
            if empty[: size + 1] == level:
                _layout.make_level(variables, empty)
        self._waits &= bool(path)

    def _read_param(self, where: Where, like: Any) -> Any:
        stored = self._late.pop(where)
        like = like if _abstract.is_array(like) else stored
        self.values[where] = self._hooks.param(where, like, _no_initializer, False)
        return self.values[where]

    def _read_state(self, where: Where, pair: Any) -> Any:
        """What hooks give for a leaf of state; told what was asked for first."""
        if not base.state_getter_stack:
            return _layout.bare(pair.current)
        return self._hooks.state(where, _layout.bare(pair.initial), _no_initializer)

    def _drop_others(self) -> None:
        if not self._hooks.others:
            return
        for where in [*self.values, *self._late]:
            if self._hooks.address(where) in self._hooks.others:
                self.values.pop(where, None)
                self._late.pop(where, None)

    # Making and writing.

    def has_param(self, where: Where) -> bool:
        """Whether Haiku holds this parameter, whoever made it."""
        module_name, name = self._hooks.address(where)
        return name in base.current_frame().params.get(module_name, {})

    def has_state(self, where: Where) -> bool:
        """Whether Haiku holds this leaf of state, whoever made it."""
        module_name, name = self._hooks.address(where)
        return name in self._state.get(module_name, {})

    def make_param(self, where: Where, value: Any, init: Initializer) -> Any:
        """Makes a parameter of initial value `value`: what Haiku makes of it.

        `init(shape, dtype)` is what creators see; it gives `value` for `value`'s shape
        and dtype."""
        module_name, name = self._hooks.address(where)
        params: Any = base.current_frame().params
        if value is None:
            params[module_name].setdefault(name, None)
        hooked = has_creators() or base.param_getter_stack
        if hooked or not _abstract.is_array(value) or self.has_param(where):
            made = self._hooks.param(where, value, init, True)
        else:  # what hk.get_parameter does, in a fifth of the time
            hooks.check_usage()
            made = init(value.shape, value.dtype)
            params[module_name][name] = made
        self.values[where] = made
        return made

    def fetch_param(self, where: Where, spec: Any, draw: Callable[[], Any]) -> Any:
        """A parameter that only creators and getters give, or MISSING.

        Args:
          draw: gives the initial value, or raises; Haiku will not store it.
        """
        return self._hooks.elsewhere(where, spec, draw)

    def fetch_state(self, where: Where, made: Any) -> Any:
        """State that creators and getters keep elsewhere; `made` by its initialiser."""
        value = self.make_state(where, made)
        bundle, name = self._bundle(where)
        if name in bundle:  # Haiku's state keeps its structure
            del bundle[name], self.values[where]
        return value

    def make_state(self, where: Where, value: Any) -> Any:
        """Makes state of initial value `value`: what Haiku makes of it."""

        def init(shape: Any, dtype: Any) -> Any:
            return cast(value, dtype) if _abstract.is_array(value) else value

        made = self._hooks.state(where, value, init)
        self.values[where] = made
        return made

    def read_state(self, where: Where) -> Any:
        """One leaf of state, as it is now."""
        bundle, name = self._bundle(where)
        self.values[where] = self._read_state(where, bundle[name])
        return self.values[where]

    def set_state(self, where: Where, value: Any) -> None:
        """Writes one leaf of state."""
        self._hooks.set_state(where, value)

    def put_state(self, where: Where, value: Any) -> None:
        """Makes state of a value that was written before anything declared it.

        A setter gives the initial value, or says `DO_NOT_STORE`, as in Haiku."""
        self.make_state(where, value)
        bundle, name = self._bundle(where)
        made: Any = bundle.get(name)
        self.set_state(where, value)
        put: Any = bundle.get(name)
        if put is not made:
            bundle[name] = type(put)(put.current, put.current)
        elif put is not None:
            del bundle[name], self.values[where]
            if not bundle:
                del self._state[self._hooks.address(where)[0]]

    def _bundle(self, where: Where) -> tuple[dict[str, Any], str]:
        """Haiku's dict that has a leaf of state, and its name there."""
        module_name, name = self._hooks.address(where)
        return self._state[module_name], name

    @property
    def _state(self) -> Any:
        return base.current_frame().state

    def make_empty(self, variables: Mapping[str, Any]) -> None:
        """Makes the modules that have no leaves, which no function of Haiku does."""
        frame: Any = base.current_frame()
        params, state = _layout.empty_bundles(variables, name=self.name)
        frame.params.update({name: {} for name in params if name not in frame.params})
        frame.state.update({name: {} for name in state if name not in frame.state})


def _no_initializer(shape: Any, dtype: Any) -> Any:
    raise AssertionError("A stored leaf has no need of an initialiser.")
