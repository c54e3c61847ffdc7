"""What the bridge refuses, and the notes that it adds to Flax's and Haiku's errors.

Each message is built in one place, and says what was given, where, what was expected
and the line to write. The errors of Flax and Haiku keep their type and text."""

from collections.abc import Iterable
from collections.abc import Sequence
import re
from typing import Any


class ModuleTypeError(TypeError):
    """What was given is no `flax.linen.Module` instance that can be bridged.

    >>> import flax.linen as nn, haiku as hk, hk_bridge
    >>> try:
    ...     hk.transform(lambda: hk_bridge.FlaxModule(nn.Dense)).init(None)
    ... except hk_bridge.ModuleTypeError as error:
    ...     print(str(error).partition(". ")[2])
    Write FlaxModule(Dense(...)) to build it first.
    """


class VariablesError(ValueError):
    """Variables do not have the form of Flax variables, or do not fit the module.

    >>> import hk_bridge
    >>> try:
    ...     hk_bridge.to_haiku({"params": 1.0}, name="net")
    ... except hk_bridge.VariablesError as error:
    ...     print(str(error).partition(". ")[0])
    The collection 'params' must be a dict with string keys, but is builtins.float
    """


class StateStructureError(ValueError):
    """A call would change the structure that `init` gave to Haiku state.

    >>> import flax.linen as nn, haiku as hk, hk_bridge
    >>> class Late(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, names):
    ...         for name in names:
    ...             self.variable("cache", name, lambda: 0.0)
    >>> f = hk.transform_with_state(lambda names: hk_bridge.FlaxModule(Late())(names))
    >>> params, state = f.init(None, ["a"])
    >>> try:
    ...     f.apply(params, state, None, ["a", "b"])
    ... except hk_bridge.StateStructureError as error:
    ...     print(str(error).partition(", path")[0])
    FlaxModule 'late' (linen Late) made a new variable at collection 'cache'
    """


class NotInitializedError(ValueError):
    """The variables of a module were asked for before it made them.

    >>> import flax.linen as nn, haiku as hk, hk_bridge
    >>> try:
    ...     hk.transform(lambda: hk_bridge.FlaxModule(nn.Dense(3)).variables).init(None)
    ... except hk_bridge.NotInitializedError as error:
    ...     print(str(error).partition(":")[0])
    FlaxModule 'dense' (linen Dense) has no variables yet
    """


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _path(collection: str, path: Sequence[str]) -> str:
    return f"collection {collection!r}, path {'/'.join(map(str, path))!r}"


# What is no linen module.


def class_given(cls: type) -> ModuleTypeError:
    return ModuleTypeError(
        "FlaxModule needs a linen or NNX module instance, but got the class "
        f"{cls.__name__}. "
        f"Write FlaxModule({cls.__name__}(...)) to build it first."
    )


def nnx_class_given(cls: type) -> ModuleTypeError:
    name = cls.__name__
    return ModuleTypeError(
        f"FlaxModule needs a linen or NNX module instance, but got the class {name}. "
        f"Write FlaxModule({name}(..., rngs=nnx.Rngs(0))) for the values of an "
        f"instance, or wrap({name})(...) for values made with Haiku's keys."
    )


def haiku_given(value: Any) -> ModuleTypeError:
    cls = value if isinstance(value, type) else type(value)
    return ModuleTypeError(
        "FlaxModule needs a linen or NNX module instance, but got the Haiku module "
        f"{cls.__name__}. It needs no bridge: call it as it is."
    )


def not_a_module(value: Any) -> ModuleTypeError:
    what = (
        f"the function {value.__name__}" if hasattr(value, "__name__") else _type(value)
    )
    return ModuleTypeError(
        f"FlaxModule needs a linen or NNX module instance, but got {what}. Write "
        "FlaxModule(nn.Dense(3)), for example; plain functions need no bridge: call "
        "them."
    )


def not_an_init(value: Any) -> TypeError:
    name = getattr(value, "__name__", type(value).__name__)
    return TypeError(
        "partition_specs needs the init of a Haiku transform, which returns params or "
        f"(params, state), but got {name!r}. Write partition_specs(f.init, ...)."
    )


def not_a_spec(where: str, value: Any) -> TypeError:
    return TypeError(
        "named_shardings takes a tree of PartitionSpecs, but has "
        f"{type(value).__name__!r} at {where or 'its root'}. Write "
        "named_shardings(mesh, partition_specs(f.init, ...))."
    )


def not_a_class(value: Any) -> ModuleTypeError:
    hint = ""
    if hasattr(type(value), "__dataclass_fields__"):
        hint = f" Write wrap({type(value).__name__}), or FlaxModule(it)."
    return ModuleTypeError(
        "wrap needs a flax.linen.Module class or a flax.nnx.Module class, but got "
        f"{value!r}.{hint}"
    )


def call_has_ended(module_name: str, method_name: str) -> RuntimeError:
    return RuntimeError(
        f"The call of {method_name} of the Flax submodule {module_name!r} has ended, "
        "and cannot be run again. Run it inside the interceptor that was told of it."
    )


def state_needs_shape(cls: str) -> ValueError:
    return ValueError(
        f"The state of a {cls} depends on its input's shape, not on the batch size "
        "alone. Write cell.initialize_carry(key, input_shape)."
    )


def has_parent(module: Any, parent: Any) -> ModuleTypeError:
    cls, owner = type(module).__name__, type(parent).__name__
    return ModuleTypeError(
        f"FlaxModule needs a module of its own, but this {cls} is already a submodule "
        "of the "
        f"Flax module {owner}, named {module.name!r} there. Where it is built inside "
        f"{owner}, "
        f"write {cls}(..., parent=None); where it belongs to a bound {owner}, write "
        "module, variables = bound.submodule.unbind() and then "
        "FlaxModule(module, variables=variables)."
    )


def no_attribute(
    owner: str, name: str, flax: str, what: str, wrapped: str
) -> AttributeError:
    text = f"{owner!r} object has no attribute {name!r}"
    if what == "cell":
        text += f". Haiku's manners of a recurrent cell are those of {wrapped}(...)."
    elif what == "method":
        text += (
            f", which is a method of {flax}. Write net(..., method={name!r}), or build "
            f"it by {wrapped}(...), which has this method, too."
        )
    elif what == "field":
        text += f", which is a field of {flax}. Write net.module.{name}."
    elif what == "submodule":
        text += (
            f", which may be a submodule of {flax}. Write net(..., method=lambda "
            f"module, x: module.{name}(x))."
        )
    return AttributeError(text, name=name)


def note_cell(wrapped: str) -> str:
    return (
        "A recurrent cell of Flax is called as (carry, inputs) and returns (carry, "
        f"output). Write {wrapped}(...), which is an hk.RNNCore: (inputs, state) and "
        "(output, state)."
    )


# Variables of a wrong form.


# A valid part for Haiku, and below it whatever Flax has.
_NAME = re.compile(r"(~|~?[a-zA-Z_]\w*)(/.*[^/])?", re.ASCII | re.DOTALL)


def check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(
            f"name= must be the module's full Haiku name, a str, not {name!r}."
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            "name= must be the module's full Haiku name, like 'net' or 'outer/~/net', "
            f"not {name!r}."
        )


def _mapping(value: Any) -> str:
    """What is given in the place of a dict with string keys: of a dict, the key."""
    keys = value if isinstance(value, dict) else ()
    wrong = [key for key in keys if not isinstance(key, str)]
    wrong.sort(key=lambda key: type(key) is int)  # which may be one, further down
    return f"a dict with the key {wrong[0]!r}" if wrong else _type(value)


def variables_type(variables: Any) -> VariablesError:
    return VariablesError(
        "variables must be a dict of collections with string keys, but got "
        f"{_mapping(variables)}. "
        'Write variables={"params": {...}}, as module.init(key, x) returns them.'
    )


def collection_type(collection: str, value: Any) -> VariablesError:
    return VariablesError(
        f"The collection {collection!r} must be a dict with string keys, but is "
        f"{_mapping(value)}. Write {{{collection!r}: {{name: array}}}}; or, if that is "
        "no collection, the level of collections on top that variables have: "
        '{"params": {...}}.'
    )


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more


def no_collections(unknown: Sequence[str], all_names: Sequence[str]) -> VariablesError:
    some = [*all_names[:4], *["..."] * (len(all_names) > 4)]
    return VariablesError(
        f"The variables have {_listed(unknown)} on top, which is none of Flax's own "
        "collections, and no 'params'. If they are the parameters alone, write "
        '{"params": variables}, or load(path, collection="params"). If these are '
        "collections of a module without parameters, write to_haiku(variables, "
        f"name=..., collections={some})."
    )


def training_state(found: Sequence[str], rest: Sequence[str]) -> VariablesError:
    all_rest = list(rest)
    one = rest[0] if len(rest) == 1 else all_rest
    return VariablesError(
        f"The variables have {_listed(found)} beside 'params', as a saved state of "
        "training has. Take the collections alone: write load(path, "
        f"collection={one!r}), or to_haiku(variables, name=..., "
        f"collections={all_rest})."
    )


def lacks_collection(collection: str, held: Sequence[str]) -> VariablesError:
    has = f"it has {_listed(held)}" if held else "it is empty"
    return VariablesError(
        f"The tree has no collection {collection!r} on top: {has}. Name some of these, "
        'or write {"params": tree} if it is the parameters alone.'
    )


def not_in_like(collection: str, path: Any) -> VariablesError:
    return VariablesError(
        f"{_path(collection, path)} has no place in the nnx.State of like=, so it "
        "would be lost. Give the state of the same model, or leave it out of the trees."
    )


def no_such_module(
    name: str, held: Sequence[str], nearest: str | None
) -> VariablesError:
    own = [module for module in held if module.startswith(f"{name}/")]
    if own:
        what = f"below it are modules of Haiku's own alone, like {own[0]!r}"
        line = "Read those as Haiku's trees, or give the name of a FlaxModule."
    elif name in held:
        what = "in state there is a Haiku module of that name"
        line = "Give the name of a FlaxModule."
    elif nearest is not None:
        what, line = f"{nearest!r} is the nearest name", f"Write name={nearest!r}."
    else:
        what = f"there is {_listed(held)}"
        line = "Write name= as the module has it in Haiku."
    return VariablesError(
        f"Neither params nor state has anything of a Flax module {name!r}; {what}. "
        f"{line} If it has no variables, write to_flax(..., like={{}})."
    )


def leaf_and_module(path: Sequence[Any]) -> VariablesError:
    collection, *rest = path
    return VariablesError(
        f"{_path(collection, rest)} is a leaf as well as a module: two trees were "
        "mixed. "
        "Convert each with a name of its own."
    )


def missing_collection_level(key: str, owner: str) -> VariablesError:
    return VariablesError(
        f"The variables given to {owner} have {key!r} on top, where a collection was "
        "expected; "
        "the module itself has a submodule or parameter of that name. Write "
        f'variables={{"params": '
        "variables}."
    )


def doubled_collection_level(owner: str) -> VariablesError:
    return VariablesError(
        f"The variables given to {owner} are nested as "
        f'{{"params": {{"params": ...}}}}: the level '
        'of collections is there twice. Write variables=variables["params"].'
    )


def transient_params(owner: str) -> VariablesError:
    return VariablesError(
        f"{owner} was given transient='params', but parameters live in Haiku params, "
        "from call to call. To run it once with others, write "
        'net.apply({**net.variables, "params": ...}, ...).'
    )


def abstract_leaf(owner: str, collection: str, path: Sequence[str]) -> VariablesError:
    return VariablesError(
        f"The variables given to {owner} hold a jax.ShapeDtypeStruct at "
        f"{_path(collection, path)}: a shape without values. Give arrays, or leave the "
        "leaf out "
        "to have it initialised."
    )


def abstract_variable(collection: str, path: Sequence[Any]) -> VariablesError:
    return VariablesError(
        f"The NNX module has a shape without values at {_path(collection, path)}, and "
        "nothing else gives the value. Write FlaxModule(module, variables=...) with a "
        "leaf there, or give a module that has values; for a wrapped class, give init "
        "a key."
    )


def abstract_attribute(path: Sequence[Any]) -> VariablesError:
    return VariablesError(
        f"The NNX module has a shape without values in the attribute {_dots(path)}, "
        "which is no nnx.Variable, so that nothing can give the value. Write "
        "nnx.Variable(...) around it, or give a module that has values."
    )


def hijax_variable(path: Sequence[Any]) -> ModuleTypeError:
    return ModuleTypeError(
        f"The Variable in the attribute {_dots(path)} of the NNX module is of the kind "
        "hijax=True: JAX itself writes into it, and Haiku could not know. Make the "
        "module with hijax=False, or inside nnx.var_defaults(hijax=False)."
    )


def written_in_copy(name: str) -> StateStructureError:
    return StateStructureError(
        f"A {name} was written that an attribute of a wrapped class gave. That is a "
        "copy, so Haiku would not know. Where a submodule is called, call it by its "
        "owner: net(x, method=lambda module, x: module.part(x))."
    )


def made_anew(collection: str, path: Sequence[Any]) -> StateStructureError:
    return StateStructureError(
        f"A call made the Variable at {_path(collection, path)}, anew, and the module "
        "or container that it is in, so that the value that Haiku has since init was "
        f"not used. Build what is at {_dots(path[:-1])} in __init__, or call the "
        "instance once before it is given to FlaxModule."
    )


def array_attribute_changed(path: Sequence[Any]) -> StateStructureError:
    return StateStructureError(
        f"A call changed the array in the attribute {_dots(path)} of an NNX module, "
        "which would be lost: it is no nnx.Variable, and so not in Haiku state. Write "
        f"self.{path[-1]} = nnx.Variable(...) where it is made."
    )


def random_attribute(cls: type) -> VariablesError:
    return VariablesError(
        f"{cls.__name__} draws an array for an attribute from a key, and the array is "
        "no nnx.Variable, so that its value is not in Haiku and cannot be had again at "
        "apply. Write nnx.Variable(...) around it."
    )


def generator_method(generator: Any) -> ModuleTypeError:
    return ModuleTypeError(
        f"{generator.__qualname__} is a generator: it would run after the call, where "
        "nothing that it writes is kept. Write a method that returns "
        f"list(self.{generator.__name__}(...)), and call that."
    )


def _dots(path: Sequence[Any]) -> str:
    return repr(".".join(map(str, path)))


def leaf_shape(
    owner: str, collection: str, path: Sequence[str], given: Any, expected: Any
) -> VariablesError:
    return VariablesError(
        f"The variables given to {owner} do not fit at {_path(collection, path)}: they "
        "hold "
        f"{given}, but the module makes {expected} there. Build the module with the "
        "same "
        "configuration as the one that made them, or leave the leaf out to have it "
        "initialised."
    )


def unused_leaf(
    owner: str, collection: str, path: Sequence[str], near: Sequence[str], more: int
) -> VariablesError:
    others = f" (and {more} more)" if more else ""
    nearest = f" The nearest that it makes is {near[0]!r}." if near else ""
    return VariablesError(
        f"The variables given to {owner} hold a leaf at {_path(collection, path)}"
        f"{others}, which the module never made during init, so it would be lost."
        f"{nearest} Rename it, or leave it out of variables=; "
        "hk_bridge.migrate.diff(variables, module, x) shows all that do not fit."
    )


def creator_shape(name: str, asked: Any, shape: Any) -> VariablesError:
    return VariablesError(
        f"A custom creator asked the initialiser of {name!r} for shape {tuple(asked)}, "
        "but its "
        f"Flax initialiser can only make {tuple(shape)}. Give the creator an "
        "initialiser of its "
        "own: next_creator(shape, dtype, init)."
    )


def keyword_of_both(keyword: str, owner: str) -> TypeError:
    return TypeError(
        f"{keyword}= is a keyword of check and of what it is to call of {owner}. For "
        f"the module, write check(module, x, method=lambda m, x: m(x, {keyword}=...)); "
        f"for check, write check(module, x, {keyword}=..., method=lambda m, x: m(x))."
    )


def named(function: Any) -> str:
    """How messages name a function, or an object that can be called."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return str(name)


def of_linen(cls: type) -> str:
    """A class as one writes it: `flax.linen.Dense`."""
    package = "flax.linen" if cls.__module__.startswith("flax.linen") else ""
    return f"{package}.{cls.__name__}" if package else cls.__name__


def no_initializer(value: Any) -> TypeError:
    if isinstance(value, type):
        name = value.__name__
        return TypeError(
            f"An initialiser was expected, but got the class {name}. Write {name}(...) "
            "to build it first."
        )
    return TypeError(
        "initializer needs a Haiku initialiser, a function (shape, dtype), but got "
        f"{_type(value)}. Write initializer(hk.initializers.RandomNormal()), for "
        "example."
    )


def no_network(given: Any) -> TypeError:
    return TypeError(
        f"A transformed network was expected, but got {_type(given)}. Write "
        "hk.transform(f) or hk.transform_with_state(f), and give what it returns."
    )


def lacks_carried(tree: Any, leaf: str) -> VariablesError:
    which = leaf.partition("[")[0]
    text = f"The old network has {leaf}, but the {which} that were given have not."
    if isinstance(tree, tuple):
        return VariablesError(
            f"{text} They are a tuple: of what init returned, write params, state = "
            "old.init(key, x), and give them one by one."
        )
    return VariablesError(f"{text} Give the {which} of the old network, as a whole.")


def initializer_asks(value: Any, name: str) -> ValueError:
    leaf = name.rpartition("/")[2]
    return ValueError(
        f"The Haiku initialiser {named(value)} asks Haiku for {leaf!r}, a parameter or "
        "state. It runs apart from the network, with the key that Flax gives, and may "
        "draw keys alone. Write it as Flax's, def init(key, shape, dtype), which runs "
        "inside the network, or ask outside of it and close over the value."
    )


def flax_initializer(value: Any) -> TypeError:
    return TypeError(
        f"{named(value)} is an initialiser of Flax, a function (key, shape, dtype). "
        "Give it to the Flax module as it is, without initializer(...)."
    )


def one_kernel_size(cls: str, features: Any, size: int) -> TypeError:
    features = "features" if features is None else features
    return TypeError(
        f"hk_bridge.nn.{cls} got kernel_size={size}, one number, which Flax takes for "
        f"a window along one axis, whatever the input is. Write {cls}({features}, "
        f"({size},)) for an input [N, W, C], as of hk.Conv1D; ({size}, {size}) for "
        f"[N, H, W, C], as of hk.Conv2D."
    )


def without_names(
    cls: str, shared: int, given: int, line: str, lines: Sequence[str]
) -> TypeError:
    count = "one argument" if shared == 1 else f"{shared or 'no'} arguments"
    theirs = "".join(f" {text[:1].upper()}{text[1:]}." for text in lines)
    return TypeError(
        f"hk_bridge.nn.{cls} takes {count} without a name, but got {given}: after that "
        f"Haiku and Flax have others in these places. Of Flax, write {line}.{theirs}"
    )


def haiku_names(cls: str, lines: Sequence[str]) -> TypeError:
    return TypeError(f"hk_bridge.nn.{cls} has names of Flax's. {'. '.join(lines)}.")


def no_such_layer(name: str, flax: str | None, what: str) -> AttributeError:
    text = f"module 'hk_bridge.nn' has no attribute {name!r}"
    if what == "layer":
        text += f". Haiku's {name} is {flax} here: write hk_bridge.nn.{flax}(...)."
    elif what == "network":
        text += f". Haiku's own needs no bridge: write hk.nets.{name}."
    elif what == "function":
        text += f". It is a plain function: write flax.linen.{name}."
    elif what == "haiku":
        text += f". Haiku's own needs no bridge: write hk.{name}."
    elif flax is not None:
        text += f". Did you mean {flax!r}?"
    return AttributeError(text, name=name)


def groups_twice(num_groups: int, group_size: int) -> ValueError:
    return ValueError(
        f"GroupNorm got both num_groups={num_groups} and group_size={group_size}, of "
        "which one "
        f"follows from the other. Write GroupNorm(num_groups={num_groups}) or "
        f"GroupNorm(group_size={group_size})."
    )


def no_groups() -> ValueError:
    return ValueError(
        "GroupNorm got neither num_groups nor group_size. Write "
        "GroupNorm(num_groups=32), or "
        "GroupNorm(group_size=...) with the number of channels a group."
    )


# Layers that cannot be stacked.


def layers_name(given: Any) -> Exception:
    kind = ValueError if isinstance(given, str) else TypeError
    return kind(
        "The layers are given by a name with one {} for the number, like "
        "'net/layers_{}', or by a list of all their names in order, not by "
        f"{given!r}."
    )


def stack_name(given: Any) -> Exception:
    kind = ValueError if isinstance(given, str) else TypeError
    return kind(
        "The name of a module is like 'net/layers', with something between all of its "
        f"slashes, not {given!r}."
    )


def layers_overlap(one: str, other: str) -> ValueError:
    return ValueError(
        f"The layers {one!r} and {other!r} are not two: give each name once, and none "
        "that is inside of another."
    )


def layers_count(given: int, count: int) -> ValueError:
    return ValueError(
        f"into= has {given} names, but {count} layers are stacked. Give as many, or "
        "one name with {} for the number."
    )


def stack_axis(given: Any) -> TypeError:
    return TypeError(
        "axis= is an int, or for Flax variables a dict of one for each collection, "
        f"like {{'params': 0}}, not {given!r}."
    )


def no_layers(layers: str, nearest: str | None) -> VariablesError:
    line = "No module there has a number in its name."
    if nearest is not None:
        line = f"The nearest name is {nearest!r}."
        if "%i" in nearest:
            line += " A number that is no text, as in lists of NNX, is written '%i{}'."
    return VariablesError(f"The tree has no layers {layers!r}, of any number. {line}")


def layers_on_top(layers: str) -> VariablesError:
    return VariablesError(
        f"The layers {layers!r} are on top of the tree, where Flax variables have "
        f'collections. Write stack({{"params": tree}}, {layers!r}, ...)["params"].'
    )


def layers_with_collection(layers: str, rest: str) -> VariablesError:
    return VariablesError(
        f"The name {layers!r} begins with a collection. In Flax variables it is the "
        f"path in each collection: write {rest!r}, and axis={{...}} to choose some."
    )


def layer_gap(
    layers: str, missing: int, held: Sequence[int], first: str
) -> VariablesError:
    some = f"{list(held)}" if len(held) < 8 else f"[{held[0]}, ..., {held[-1]}]"
    line = f"[{layers!r}.format(i) for i in {some}]"
    if first:
        line = f"[{first!r}, *({layers!r}.format(i) for i in {some})]"
    return VariablesError(
        f"There is no {layers.replace('{}', str(missing))!r}, while there is "
        f"{layers.replace('{}', str(held[-1]))!r}: layers are counted from 0 without "
        f"a gap. Give the names of those that are meant: {line}."
    )


def no_module(name: str, nearest: str | None) -> VariablesError:
    hint = f" The nearest name is {nearest!r}." if nearest else ""
    return VariablesError(f"The tree has nothing at {name!r}.{hint}")


def layer_lacks(missing: Any, other: Any) -> VariablesError:
    return VariablesError(
        f"The layers are not alike: there is {str(other)!r}, but not {str(missing)!r}. "
        "Layers of one scan have the same leaves; give a list of those that are alike."
    )


def no_stack(where: Any, given: str, expected: str) -> VariablesError:
    return VariablesError(
        f"The leaf {str(where)!r} is {given}, where a stack of layers needs "
        f"{expected}. Make an array of it (jax.numpy.asarray), choose another axis=, "
        "or give a list of the layers that are alike."
    )


def nothing_to_stack(name: str) -> VariablesError:
    return VariablesError(
        f"The layers have no leaves, from {name!r} on: nothing would tell how many "
        "there were."
    )


def nothing_to_unstack(name: str, empty: Any) -> VariablesError:
    what = f"{str(empty)!r} has 0 of them" if empty else "no leaf is there"
    return VariablesError(
        f"{name!r} holds no layers: {what}. Give the name of modules that a scan "
        "stacked, and axis= as it has it."
    )


def uneven_stack(one: tuple[int, Any], other: tuple[int, Any]) -> VariablesError:
    return VariablesError(
        f"The stack is uneven: {str(one[1])!r} has {one[0]} layers, and "
        f"{str(other[1])!r} has {other[0]}. Give the name of modules that one scan "
        "stacked, and axis= as it has it."
    )


def stack_taken(target: Sequence[str], at: Any) -> VariablesError:
    return VariablesError(
        f"{'/'.join(target)!r} is taken: the tree has {str(at)!r}. Choose another "
        "into=."
    )


# State that would change its structure; variables that are not there yet.


def new_state_leaf(
    owner: str, collection: str, path: Sequence[str]
) -> StateStructureError:
    return StateStructureError(
        f"{owner} made a new variable at {_path(collection, path)} in a call after "
        "init. "
        "Haiku state keeps the structure that init gave it, so the value would be "
        "lost. Make the "
        "variable at init, too (call the same branch or method there), ask for it with "
        f"net(..., mutable=[{collection!r}]), or give FlaxModule(..., "
        f"transient={collection!r}) "
        "if it need not last."
    )


def changed_state_leaf(
    owner: str, collection: str, path: Sequence[str], old: Any, new: Any
) -> StateStructureError:
    return StateStructureError(
        f"{owner} changed the structure of the variable at {_path(collection, path)} "
        f"from {old} "
        f"to {new}. Haiku state keeps the structure that init gave it. Give the "
        "variable its "
        f"final structure at init, or write FlaxModule(..., transient={collection!r}) "
        "if it "
        "need not last."
    )


def not_initialized(owner: str) -> NotInitializedError:
    return NotInitializedError(
        f"{owner} has no variables yet: during init a module makes them when it is "
        "first called. "
        "Call it once before you ask for net.variables: if hk.running_init(): net(x)."
    )


def stateless_transform(owner: str, collection: str, path: Sequence[str]) -> str:
    return (
        f"{owner} keeps {_path(collection, path)} in Haiku state, but runs inside a "
        "plain "
        "hk.transform. Write hk.transform_with_state(f), whose init returns (params, "
        "state) and "
        "whose apply takes and returns state."
    )


def lifted_stream(stream: str, path: str) -> str:
    return (
        f"{path} asks for the stream {stream!r} inside a lifted transform (nn.remat, "
        "nn.jit, ...), where no Haiku key can be drawn. Give keys to the call, "
        f"net(..., rngs={{{stream!r}: hk.next_rng_key(), ...}}), of this stream and of "
        "the others that it uses."
    )


# Private symbols of other libraries that are gone.


def wrong_without(
    symbol: str, name: str, oldest: str, newest: str, version: str
) -> ImportError:
    return ImportError(
        f"hk_bridge cannot do without {symbol}, a private part that {name} {version} "
        f"does not have. It works with {name} {oldest} to {newest}. Write pip install "
        f"'{name}=={newest}', or take a newer hk_bridge."
    )


def slower_without(
    symbol: str, cost: str, name: str, oldest: str, newest: str, version: str
) -> str:
    return (
        f"hk_bridge does without {symbol}, a private part that {name} {version} does "
        f"not have: all results are as ever, but this takes longer: {cost}. Write pip "
        f"install '{name}=={newest}', or take a newer hk_bridge. It is fast with "
        f"{name} {oldest} to {newest}."
    )


# Notes to the errors of Flax and Haiku.


def note_call(owner: str) -> str:
    return f"This happened in hk_bridge.{owner}."


def note_rngs(streams: Sequence[str]) -> str:
    return (
        f"rngs= of this call has {', '.join(map(repr, streams)) or 'no stream'}. Give "
        "it a key for that stream, or for 'default', which answers for all others: a "
        "module that was built with nnx.Rngs(0) asks for no other."
    )


def note_outline(cls: type) -> str:
    return (
        f"At apply {cls.__name__} is built by shapes alone, so its constructor may not "
        "read a value that comes from a key. Build the module outside of the transform "
        "and write FlaxModule(module)."
    )


def note_field(field: str, haiku_module: Any) -> str:
    flax = getattr(haiku_module, "flax_class", None)
    line = f": {field}={of_linen(flax)}(...)" if flax is not None else ""
    return (
        f"Its field {field} is a Haiku module, {_type(haiku_module)}. Where Flax is to "
        f"run a submodule, write one of Flax{line}."
    )


def note_box(cls: type) -> str:
    return (
        f"A {cls.__name__} has a name for each axis. Give the one of the layers, as "
        'nn.scan has it: metadata_params={nn.PARTITION_NAME: "layers"}.'
    )


def note_haiku_name(line: str) -> str:
    return f"{line}."


def note_initializer(init_fn: Any) -> str:
    name = named(init_fn)
    return (
        f"{name} is a Haiku initialiser, called with (shape, dtype). Flax gives a key, "
        f"too: write hk_bridge.initializer(w) in its place, w being this {name}."
    )


def note_no_key(init_fn: Any, collection: str, path: Sequence[str]) -> str:
    return (
        f"The initialiser {named(init_fn)} of {_path(collection, path)} asks Haiku "
        "for a key where none is at hand: Haiku has none, or this is inside a lifted "
        "transform (nn.remat, nn.jit, ...). Flax gives none to a variable, so write "
        'lambda: hk_bridge.initializer(w)(self.make_rng("params"), shape, dtype), with '
        "w the initialiser."
    )


def note_explicit(sizes: Sequence[int], names: Sequence[str]) -> str:
    return (
        "The mesh that is set has axes of type Explicit, which jax.make_mesh gives "
        "unless it is told: there JAX takes constraints, such as those of Flax's "
        "annotations, for assertions, and wants each result's sharding told. Write "
        f"jax.make_mesh({tuple(sizes)}, {tuple(names)}, "
        f"axis_types=(jax.sharding.AxisType.Auto,) * {len(names)})."
    )


def note_no_mesh() -> str:
    return (
        "A wrapped class of NNX is built in init and apply alike, and its annotations "
        "want a mesh then. Write with jax.set_mesh(mesh): around both and around "
        "partition_specs, or with nnx.use_eager_sharding(False): to build without."
    )


def note_axes(where: str, spec: Iterable[Any], names: Sequence[str]) -> str:
    parts = [part if isinstance(part, tuple) else (part,) for part in spec]
    unknown = [n for n in sum(parts, ()) if isinstance(n, str) and n not in names]
    note = f"This is the spec at {where or 'the root'}."
    if not unknown:
        return note
    rules = ", ".join(f"({name!r}, None)" for name in dict.fromkeys(unknown))
    return (
        f"{note} If that names logical axes, write with "
        f"flax.linen.logical_axis_rules([{rules}]): around partition_specs, with an "
        f"axis of the mesh, of {tuple(names)}, in the place of None, or None for none."
    )


def note_leaf(
    which: str, module_name: str, name: str, collection: str, path: Sequence[str]
) -> str:
    where = _path(collection, path)
    return f"In Haiku, {where} is {which}[{module_name!r}][{name!r}]."


def note_mutable(collection: str) -> str:
    if collection == "params":
        return (
            "Parameters are not written at apply. Add 'params' to mutable=, which then "
            "returns (y, mutated), and put mutated into Haiku's params yourself: "
            "hk_bridge.to_haiku(mutated, name=...)."
        )
    return (
        f"Only what mutable= lists may change in this call. Add {collection!r} to it, "
        "or leave mutable= out, which lets all of Haiku state change."
    )


def note_missing(which: str) -> str:
    if which == "state":
        return (
            "Write hk.transform_with_state(f) and give the state that f.init returned "
            f"to f.apply(params, state, key, ...). {_LOADED}"
        )
    return f"Give the params that f.init returned to f.apply. {_LOADED}"


def note_sown(collection: str, path: Sequence[str]) -> str:
    who = f"The submodule {'/'.join(path)!r}" if path else "The module"
    return (
        f"{who} sows into {collection!r}, so that collection is transient: it lives "
        "for one call, and nothing of it is kept. Sow into a collection of its own."
    )


_LOADED = (
    "If it was loaded, hk_bridge.to_haiku(variables, name=...) makes every leaf under "
    "its name; if it was made by init, call the same methods at init as at apply."
)


def note_key(initializing: bool) -> str:
    line = (
        "init, f.init(key, ...)"
        if initializing
        else "apply, f.apply(params, state, key, ...) or f.apply(params, key, ...)"
    )
    return (
        f"No Haiku key was at hand. Give one to {line}, or keys to this call, "
        "net(..., rngs={stream: key})."
    )


# Why a call was not shared.
FIRST = "the first of its kind, runs as ever"
FIRST_INSIDE = "the first of its kind in a trace for others, runs as ever"
TRACED = "traced for the others"
FEW = "few of its kind had come, runs as ever"
SEEN = "a hook of Haiku is in force, or mutable= or capture_intermediates= is given"
INTERCEPTED = "interceptors are in force"
NOT_STAGED = "an input is a constant, or nothing is being traced"
NO_VALUE = "its configuration, arguments or code are not known to be values"
KEYS_INSIDE = "it draws keys, or keeps things, as another call cannot"
KEYS_TO_COME = "it draws the first key of a stream"
CHANGED = "it changed while it ran"
GIVEN = "it is given modules or Variables of NNX"
ASKS_CLASS = "nothing in it is shared: its code may ask of what class an object is"
WRITES = "it writes into its arguments"
COUNTED = "hk.experimental.optimize_rng_use counts its keys"
IN_ITSELF = "it runs inside of itself"
SCOPE_SHARED = "it shares the variables of another module"
NO_METHOD = "what is called is not the method of its class"
ATTRIBUTES = "it has attributes that are no fields"
CALLED_BEFORE = "it was called before, and has a setup()"
FOREIGN = "it holds a module that is filed elsewhere"


def not_apart(error: Exception) -> str:
    """Why a call was not shared: its code does not run by itself."""
    line = str(error).strip().partition("\n")[0][:60]
    return f"does not run apart: {type(error).__name__}: {line}"


class MatchError(ValueError):
    """What `migrate.match` was given cannot be compared, or a table does not fit.

    >>> import hk_bridge
    >>> try:
    ...     hk_bridge.migrate.LeafTable.parse("params/linear/w")
    ... except hk_bridge.migrate.MatchError as error:
    ...     print(str(error).partition(": ")[0])
    Line 1 is no row of a table of leaves
    """


def no_row(number: int, line: str) -> MatchError:
    return MatchError(
        f"Line {number} is no row of a table of leaves: {line!r}. Expected a leaf of "
        "Haiku, its shape, a leaf of Flax, its shape, and how it is turned, with tabs "
        "between, as LeafTable.text() writes them."
    )


def lacks_leaf(name: str) -> MatchError:
    return MatchError(
        f"The table names the leaf {name!r}, which was not given. Give all leaves of "
        "the model that the table was made for, or take its row out."
    )


def other_shape(name: str, expected: Sequence[int], given: Sequence[int]) -> MatchError:
    return MatchError(
        f"The leaf {name!r} has shape {list(given)}, where the table says "
        f"{list(expected)}. The table is for a model of other sizes: make it anew with "
        "migrate.match(...)."
    )


def too_many_steps(most: int) -> MatchError:
    return MatchError(
        f"The program has more than {most:,} steps, all its loops written out. Give "
        "inputs with fewer time steps: the weights are the same."
    )


def is_one_leaf(one: str, other: str, flax: str) -> MatchError:
    return MatchError(
        f"'{one}' and '{other}' of Haiku are both '{flax}' of Flax, but they are not "
        f"the same: they were trained apart, and Flax has one leaf for both. Read "
        f"'{one}' in both places of the Haiku network, or give Flax two leaves."
    )


def no_haiku_network(given: Any) -> MatchError:
    return MatchError(
        f"A native Haiku network was expected, but got {_type(given)}. Write "
        "hk.transform(f) or hk.transform_with_state(f), and give what it returns."
    )


def not_called(side: str, error: BaseException) -> str:
    return (
        f"That was raised by {side}'s network. What both are called with is *args and "
        "**kwargs; flax_kwargs={...} and haiku_kwargs={...} go to one alone."
    )
