"""`FlaxModule`: a Flax linen module as an `hk.Module`."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
import functools
from typing import Any

import jax

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge import _names
from hk_bridge import _sharding
from hk_bridge import _share

# What a FlaxModule has, but its class has not.
INSTANCE = (
    *("module", "name", "module_name", "_given", "_transient", "_called"),
    *("_text", "_arguments"),
    *_haiku.INSTANCE,
)


class Bridged(_haiku.Module):
    """What a `FlaxModule` and the classes of `wrap` are, but for being called."""

    # Haiku's own text would print the arrays of `variables` at every construction.
    AUTO_REPR = False

    def __new__(cls, *args: Any, **kwargs: Any) -> "Bridged":
        made: Bridged = super().__new__(cls)
        vars(made)["_arguments"] = args, kwargs  # the text of `made` until it is built
        return made

    def __init__(
        self,
        module: Any,
        *,
        variables: Mapping[str, Any] | None = None,
        transient: str | Collection[str] | None = None,
        name: str | None = None,
    ):
        """Takes `module` into Haiku.

        Args:
          module: a linen module instance. One that is bound to variables is unbound,
            and they become `variables`.
          variables: initial values, a tree as `module.init` returns it, or a part of
            one. What it holds is used at init in place of the initialisers, with its
            own dtype; the rest is initialised, to the same values as without it.
          transient: names of collections that live for one call and never enter Haiku
            state, where that cannot be told at init by the module sowing into them.
          name: the Haiku name; by default the module's own `name`, else its class in
            snake case.

        Raises:
          ModuleTypeError: `module` is no linen module instance, or has a Flax parent.
          VariablesError: `variables` is not a dict of dicts, or holds shapes in place
            of arrays.
        """
        cls = module if isinstance(module, type) else type(module)
        if issubclass(cls, _haiku.Module):
            raise _errors.haiku_given(module)
        if _haiku.is_flax_over_haiku(getattr(module, "parent", None)):
            module = _flax.without_parent(module)
        self.module, bound_to = _flax.unbound(module)
        if name is None:
            name = self.module.name or _haiku.camel_to_snake(_flax.title(self.module))
        super().__init__(name)
        _haiku.without_callers(self)
        vars(self).pop("_arguments", None)
        self._given = bound_to if variables is None else variables
        self._transient = frozenset(
            [transient] if isinstance(transient, str) else transient or ()
        )
        self._called = False
        if self._given is not None:
            _check_given(self._given, _owner(self))

    @property
    @_haiku.transparent
    def variables(self) -> dict[str, Any]:
        """The Flax variables, `{collection: nested dict}`, as they stand.

        They are read through Haiku's getters. Boxes are open.

        Raises:
          NotInitializedError: at init, before the module was called.
        """
        params, state = _haiku.read(self)
        if not params and not state and not self._called and _haiku.running_init():
            raise _errors.not_initialized(_owner(self))
        return _layout.to_flax(params, state, name=self.module_name)

    @_haiku.transparent
    def _line(self) -> str:
        """The line that builds it."""
        names = {"name": self.name}
        return _flax.line(type(self).__name__, (self.module,), names)

    @property
    @_haiku.transparent
    def _auto_repr(self) -> str:
        """The text, which Haiku sets before it builds a module.

        Haiku's counts if the class asks for it, or if nobody wants a text."""
        given: str | None = vars(self).get("_text")
        if given is not None:
            return given
        if "name" in vars(self):
            return self._line()
        return _flax.line(type(self).__name__, *vars(self)["_arguments"])

    @_auto_repr.setter
    @_haiku.transparent
    def _auto_repr(self, given: str) -> None:
        if self.AUTO_REPR or not _haiku.texts_wanted():
            vars(self)["_text"] = given


class FlaxModule(Bridged):
    """A Flax linen module as an `hk.Module`, its variables in Haiku's params and state.

    Build it inside `hk.transform_with_state` (or `hk.transform`, if the module keeps no
    state) and call it as you would call the linen module:

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> def forward(x, train):
    ...     norm = FlaxModule(nn.BatchNorm(), name="norm")
    ...     x = norm(hk.Linear(8)(x), use_running_average=not train)
    ...     return FlaxModule(nn.Dropout(0.5))(x, deterministic=not train)
    >>> f = hk.transform_with_state(forward)
    >>> key, x = jax.random.key(0), jnp.ones([2, 4])
    >>> params, state = f.init(key, x, train=True)
    >>> sorted(params), sorted(state)
    (['linear', 'norm'], ['norm/batch_stats'])
    >>> y, state = f.apply(params, state, key, x, train=True)

    The collection `params` lives in Haiku params, under the module's Haiku name and the
    path of the Flax submodule (`net/Dense_0`); every other collection in Haiku state,
    with the name of the collection between (`net/batch_stats/BatchNorm_0`).
    `hk_bridge.to_flax` gives them back to Flax. A collection into which the module sows
    is not kept: it lives for one call.

    Attributes:
      module: the linen module, without variables. `net.module.apply(net.variables,
        ...)` is a pure function, for raw JAX transforms and for solvers.
    """

    def __call__(
        self,
        *args: Any,
        rngs: Any = None,
        method: Callable[..., Any] | str | None = None,
        mutable: Any = None,
        capture_intermediates: bool | Callable[[Any, str], bool] = False,
        **kwargs: Any,
    ) -> Any:
        """Runs a method of the linen module, once.

        The keywords mean what they mean in `nn.Module.apply`, at init as well, but for
        two defaults.

        Args:
          *args: positional arguments of the method.
          rngs: keys, `{stream: key}` or one key for the stream `params`. By default
            each stream that the module asks for gets a key from Haiku, drawn when it is
            first used; a module that asks for none leaves Haiku's keys alone. At init,
            a `params` stream that `rngs` lacks comes from Haiku.
          method: what to run, by default `__call__`: a name, a method, or a function of
            the bound module.
          mutable: the collections that may change. By default all that are kept in
            Haiku state, and only the output is returned.
          capture_intermediates: whether (or by which filter) to store what methods
            return in the collection `intermediates`, which `mutable=["intermediates"]`
            returns.
          **kwargs: keyword arguments of the method.

        Returns:
          The output `y`; with `mutable`, `(y, mutated)` as in Flax.

        Raises:
          StateStructureError: a new variable in a kept collection after init, or one
            whose tree structure changed.
          Whatever Flax and Haiku raise, with a note that tells where.
        """
        return call(self, method, args, kwargs, rngs, mutable, capture_intermediates)


def call(
    net: Bridged,
    method: Callable[..., Any] | str | None,
    args: Any,
    kwargs: Any,
    rngs: Any = None,
    mutable: Any = None,
    capture_intermediates: Any = False,
) -> Any:
    """What `FlaxModule.__call__` does, for methods of Haiku classes that do it, too."""
    try:
        this = _Call(net, rngs, mutable, capture_intermediates)
        result = this.run(method, args, kwargs)
        _haiku.announce(net)
        return result
    except Exception as error:
        if _flax.lacks_key(error) and rngs is None and _haiku.key_source() is None:
            error.add_note(_errors.NOTE_KEY)
        for field, value in vars(net.module).items():
            if isinstance(value, _haiku.Module):
                error.add_note(_errors.note_field(field, value))
        error.add_note(_errors.note_call(_owner(net)))
        raise


def _owner(net: Bridged) -> str:
    """How messages name `net`."""
    return f"{type(net).__name__} {net.module_name!r} (linen {_flax.title(net.module)})"


def _check_given(variables: Mapping[str, Any], owner: str) -> None:
    """Refuses variables of a wrong form, before anything runs."""
    _layout.to_haiku(variables, name="given")
    for collection, path, leaf in _layout.leaves(variables):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise _errors.abstract_leaf(owner, collection, path)


class _Call:
    """One call of a `FlaxModule`: Haiku's leaves go in, what changed comes back."""

    def __init__(
        self, net: Bridged, rngs: Any, mutable: Any, capture_intermediates: Any
    ):
        self.net = net
        self.name = net.module_name
        self.initializing = _haiku.running_init()
        self.streams = _flax.Streams(
            net.module, rngs, _haiku.key_source(), self.initializing
        )
        self.capture = capture_intermediates
        self.asked = mutable
        if capture_intermediates and mutable is not None:
            self.asked = _flax.with_intermediates(mutable)
        self.params, self.state = _haiku.read(net)
        self.given = net._given if self.initializing and net._given else {}
        self.given_leaves = {
            (c, path): leaf for c, path, leaf in _layout.leaves(self.given)
        }
        self.created: set[tuple[str, _names.Path]] = set()
        self.started: dict[tuple[str, _names.Path], Any] = {}

    def run(self, method: Any, args: Any, kwargs: Any) -> Any:
        module, function = self.net.module, _flax.resolve(self.net.module, method)
        variables = self.variables()
        flax_call = _flax.Call(
            streams=self.streams,
            mutable=self.mutable(variables),
            initializing=self.initializing,
            create=self.create if self.initializing else self.fetch,
            explain=self.explain,
            start=self.start if self.initializing else None,
            observe=self.observe if _haiku.is_observed() else None,
        )

        def once(variables: dict[str, Any]) -> _flax.Outcome:
            if self.may_share():
                return _share.run(module, function, variables, flax_call, args, kwargs)
            return _flax.run(
                module, function, variables, flax_call, self.capture, args, kwargs
            )

        try:
            outcome = once(variables)
        except Exception as error:
            fetched = self.fetch_all(error, function, args, kwargs)
            if not fetched:
                raise
            outcome = once(_layout.insert(self.variables(), fetched))
        if self.initializing:
            _sharding.note_boxes(self.name, outcome.variables)
            changed = self.settle(outcome)
            if changed:
                outcome = once(self.again(outcome.variables, changed))
                self.write_changed(outcome.variables, changed)
        else:
            self.write_back(outcome.variables)
        self.net._called = True
        if self.asked is None or self.asked is False:
            return outcome.output
        return outcome.output, outcome.mutated(self.asked)

    def variables(self) -> dict[str, Any]:
        """What Haiku held before the call, as Flax takes it."""
        variables = _layout.to_flax(self.params, self.state, name=self.name)
        return {c: v for c, v in variables.items() if c not in self.net._transient}

    def may_share(self) -> bool:
        """Whether another call may have done all that this one will do."""
        if self.initializing or self.asked is not None or self.capture:
            return False
        return not (_haiku.is_observed() or _haiku.has_creators())

    def mutable(self, variables: Mapping[str, Any]) -> Any:
        """What Flax may change in this call; `variables` has what Haiku keeps."""
        if self.initializing:
            mutable = _flax.mutable_at_init(self.asked)
        elif self.asked is not None:
            return self.asked
        else:
            mutable = tuple(c for c in variables if c != _layout.PARAMS) or False
        return _flax.with_intermediates(mutable) if self.capture else mutable

    def writes(self, collection: str) -> bool:
        """Whether what changes in `collection` is written to Haiku state."""
        if collection == _layout.PARAMS or collection in self.net._transient:
            return False
        return self.asked is None or _flax.in_filter(self.asked, collection)

    # Parameters that Flax asks for and that Haiku does not hold.

    def create(self, parameter: _flax.Parameter) -> Any:
        """At init: makes the parameter in Haiku, and gives what Haiku made of it."""
        given = self.given_leaves.get((_layout.PARAMS, parameter.path))
        drawn: list[Any] = []

        def draw() -> Any:
            if not drawn:
                drawn.append(parameter.draw())
            return drawn[0]

        if given is not None:
            spec = parameter.spec()
            self.check_given(_layout.PARAMS, parameter.path, given, _layout.unbox(spec))
            drawn.append(_layout.rebox(given, spec))
            parameter.skip()
        # A creator may do without the initialiser, which then neither runs nor asks for
        # a key.
        like = parameter.spec() if _haiku.has_creators() and not drawn else draw()
        if any(getattr(x, "weak_type", False) for x in jax.tree.leaves(like)):
            like = draw()  # a Python number has no shape
        made = self.create_tree(parameter.path, like, draw, parameter.with_shape)
        if not drawn:
            parameter.skip()
        return made

    def create_tree(
        self,
        path: _names.Path,
        like: Any,
        draw: Callable[[], Any],
        remake: Callable[..., Any],
    ) -> Any:
        if _layout.is_box(like):
            opened = self.create_tree(
                path, _layout.open_box(like), lambda: _layout.open_box(draw()), remake
            )
            return like.replace_boxed(opened)
        if _layout.is_level(like):
            part: Callable[..., Any] = lambda key: draw()[key]
            return {
                k: self.create_tree((*path, k), v, functools.partial(part, k), remake)
                for k, v in like.items()
            }
        return self.create_leaf(_layout.PARAMS, path, like, draw, remake)

    def create_leaf(
        self,
        collection: str,
        path: _names.Path,
        value: Any,
        draw: Callable[[], Any],
        remake: Callable[..., Any],
    ) -> Any:
        """Makes one leaf in Haiku: of the value given by the user, else of `draw()`.

        `value` has its shape and dtype."""
        given = self.given_leaves.get((collection, path))
        if given is not None and given is not value:
            self.check_given(collection, path, given, value)
            value, draw = given, lambda: given
        self.created.add((collection, path))
        module_name, name = _layout.address(self.name, collection, path)
        if collection != _layout.PARAMS:
            return _haiku.create_state(self.net, module_name, name, value)

        def init(shape: Any, dtype: Any) -> Any:
            if not hasattr(value, "shape"):
                return draw()
            made = (
                draw() if tuple(shape) == value.shape else _layout.unbox(remake(shape))
            )
            if made is _flax.MISSING:
                raise _errors.creator_shape(f"{module_name}/{name}", shape, value.shape)
            return _haiku.cast(made, dtype)

        return _haiku.create_param(self.net, module_name, name, value, init)

    def start(self, collection: str, path: _names.Path, made: Any) -> Any:
        """At init: what a variable starts from, `made` but for given leaves."""

        def leaf(collection: str, path: _names.Path, made: Any) -> Any:
            value = self.given_leaves.get((collection, path), made)
            if value is not made:
                self.check_given(collection, path, value, made)
            self.started[collection, path] = value
            return value

        if collection in self.net._transient:
            return made
        return _layout.map_leaves(leaf, made, (collection, *path))

    def check_given(
        self, collection: str, path: _names.Path, given: Any, made: Any
    ) -> None:
        shapes = [getattr(value, "shape", None) for value in (given, made)]
        if shapes[0] != shapes[1]:
            raise _errors.leaf_shape(
                _owner(self.net), collection, path, *map(_describe, (given, made))
            )

    def fetch(self, parameter: _flax.Parameter) -> Any:
        """After init: a parameter that only a creator and a getter give."""
        spec = _layout.unbox(parameter.spec())
        if hasattr(spec, "shape"):
            address = _layout.address(self.name, _layout.PARAMS, parameter.path)
            return _haiku.fetch_param(self.net, *address, spec, _flax.MISSING)
        return _flax.MISSING

    def fetch_all(
        self, error: Exception, function: Any, args: Any, kwargs: Any
    ) -> dict[tuple[str, _names.Path], Any]:
        """After init: what `fetch` gives for the inside of lifted transforms.

        There Flax asks no Scope of ours; so if it lacks a parameter while a creator is
        in force, all of them are looked up, and the module runs again.
        """
        if (
            self.initializing
            or not _flax.lacks_param(error)
            or not _haiku.has_creators()
        ):
            return {}
        found, stored = {}, self.stored()
        for collection, path, spec in _layout.leaves(
            _flax.specs(self.net.module, function, args, kwargs)
        ):
            if collection == _layout.PARAMS and (collection, path) not in stored:
                address = _layout.address(self.name, collection, path)
                found[collection, path] = _haiku.fetch_param(
                    self.net, *address, spec, _flax.MISSING
                )
        return {at: value for at, value in found.items() if value is not _flax.MISSING}

    def observe(
        self,
        path: _names.Path,
        module: Any,
        method: str,
        run: Any,
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Runs a method of a Flax submodule so that Haiku's interceptors see it."""
        module_name = _names.join(self.name, path)
        text = _flax.describe(module) if _haiku.texts_wanted() else None
        shown = (_flax.title(module), text)
        return _haiku.observe(self.net, module_name, shown, method, run, args, kwargs)

    # What Flax made or changed goes to Haiku.

    def settle(self, outcome: _flax.Outcome) -> dict[tuple[str, _names.Path], Any]:
        """At init: makes the leaves that are new, and writes those that changed.

        Parameters made inside a lifted transform and state are made here, after the
        pass. Those are returned that a hook of Haiku changed, or the user gave inside a
        lifted transform: the module has to run again with them."""
        transient = self.net._transient | (outcome.sown - {_layout.PARAMS})
        variables = {
            c: tree for c, tree in outcome.variables.items() if c not in transient
        }
        self.check_levels(variables)
        old = self.stored()
        changed: dict[tuple[str, _names.Path], Any] = {}
        self.write_changed(variables, old)
        for collection, path, value in _layout.leaves(variables):
            if (collection, path) not in old and (collection, path) not in self.created:
                if collection != _layout.PARAMS:
                    message = _errors.stateless_transform(
                        _owner(self.net), collection, path
                    )
                    _haiku.refuse_if_stateless(message)
                new = self.create_leaf(
                    collection,
                    path,
                    value,
                    functools.partial(_layout.unbox, value),
                    lambda shape: _flax.MISSING,
                )
                given = (collection, path) in self.given_leaves
                start = self.started.get((collection, path), value) if given else value
                if new is not start:
                    changed[collection, path] = new
                elif value is not start and self.writes(collection):
                    self.set_state(collection, path, value, start)
        _haiku.create_empty(*_layout.empty_bundles(variables, name=self.name))
        return changed

    def again(
        self, variables: Mapping[str, Any], changed: dict[tuple[str, _names.Path], Any]
    ) -> dict[str, Any]:
        """The variables with which to run again: all params, and state as it was.

        `start` gives the module what state starts from now. It is not asked inside
        lifted transforms, where such a leaf has to be there before."""
        self.given_leaves |= changed
        params = {c: tree for c, tree in variables.items() if c == _layout.PARAMS}
        before = self.variables() | _layout.replace(
            params, {**changed, **self.stored()}
        )
        lifted = {
            at: new
            for at, new in changed.items()
            if at[0] != _layout.PARAMS and at not in self.started
        }
        return _layout.insert(before, lifted)

    def write_changed(
        self,
        variables: Mapping[str, Any],
        before: Mapping[tuple[str, _names.Path], Any],
    ) -> None:
        """Writes to Haiku state what is no longer as it was before."""
        for collection, path, value in _layout.leaves(variables):
            old = before.get((collection, path), value)
            if value is not old and self.writes(collection):
                self.set_state(collection, path, value, old)

    def check_levels(self, variables: Mapping[str, Any]) -> None:
        """Refuses given variables without the level of collections, or with two."""
        params = variables.get(_layout.PARAMS, {})
        for key in self.given:
            if key not in variables and key in params:
                raise _errors.missing_collection_level(key, _owner(self.net))
        if (
            _layout.PARAMS in self.given.get(_layout.PARAMS, ())
            and _layout.PARAMS not in params
        ):
            raise _errors.doubled_collection_level(_owner(self.net))
        if self.given_leaves:
            self.check_structure(variables)

    def check_structure(self, variables: Mapping[str, Any]) -> None:
        """Refuses given leaves where the module makes a level, and the reverse."""
        made = {(c, path): leaf for c, path, leaf in _layout.leaves(variables)}
        levels = {(c, path[:i]) for c, path in made for i in range(1, len(path))}
        owner = _owner(self.net)
        for (c, path), leaf in self.given_leaves.items():
            if (c, path) in levels:
                raise _errors.leaf_shape(owner, c, path, _describe(leaf), "a dict")
            for above in (path[:i] for i in range(1, len(path))):
                if (c, above) in made:
                    leaf = _describe(made[c, above])
                    raise _errors.leaf_shape(owner, c, above, "a dict", leaf)

    def stored(self) -> dict[tuple[str, _names.Path], Any]:
        """What Haiku held before the call, by collection and path."""
        variables = _layout.to_flax(self.params, self.state, name=self.name)
        return {(c, path): leaf for c, path, leaf in _layout.leaves(variables)}

    def write_back(self, variables: Mapping[str, Any]) -> None:
        """After init: writes what changed in the kept collections to Haiku state."""
        if not self.state:
            return
        old = self.stored()
        # Creators may keep the leaves elsewhere, and leave Haiku an empty dict.
        elsewhere = _haiku.has_state_creators()
        held = {c for c, _ in old} if elsewhere else self.variables()
        kept = [c for c in held if self.writes(c)]
        new = _layout.leaves({c: variables[c] for c in kept})
        for collection, path, value in new:
            before = old.pop((collection, path), _flax.MISSING)
            if before is _flax.MISSING:
                if self.asked is None:
                    raise _errors.new_state_leaf(_owner(self.net), collection, path)
            elif value is not before:
                self.set_state(collection, path, value, before)
        for collection, path in old:
            if collection in kept:
                before = jax.tree.structure(old[collection, path])
                raise _errors.changed_state_leaf(
                    _owner(self.net), collection, path, before, "no leaf"
                )

    def set_state(
        self, collection: str, path: _names.Path, value: Any, old: Any
    ) -> None:
        before: Any = jax.tree.structure(old)
        after: Any = jax.tree.structure(value)
        if before != after:
            raise _errors.changed_state_leaf(
                _owner(self.net), collection, path, before, after
            )
        _haiku.set_state(self.net, *_layout.address(self.name, collection, path), value)

    def explain(self, error: Exception, collection: str, path: _names.Path) -> None:
        """Adds to an error of Flax about a variable where in Haiku that is."""
        address = _layout.address(self.name, collection, path)
        which = "params" if collection == _layout.PARAMS else "state"
        error.add_note(_errors.note_leaf(which, *address, collection, path))
        if _flax.is_immutable(error):
            error.add_note(_errors.note_mutable(collection))
        elif not self.initializing and _flax.lacks_variable(error):
            error.add_note(_errors.note_missing(which))


def _describe(value: Any) -> str:
    """The dtype and shape of an array in a message."""
    if not hasattr(value, "shape"):
        return type(value).__name__
    return f"{value.dtype}{list(value.shape)}"
