"""What Haiku defines: a bridged module does what plain Haiku modules do."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

import hk_bridge

from .cases import KEY
from .cases import Case
from .cases import X
from .cases import total
from .cases import zeros
from .compare import Run
from .compare import by_path
from .compare import open_boxes
from .compare import same
from .compare import trace
from .flax_laws import built
from .flax_laws import native_init
from .flax_laws import runs
from .hooks import HOOKS
from .hooks import MAPS
from .hooks import cast
from .twin import Twin
from .twin import changes
from .twin import outer
from .twin import twin
from .uses import CALLS
from .uses import OPAQUE

Asked = dict[str, list[Any]]


def network(build: Any, cls: type, use: Any, hook: Any) -> Any:
    """The use of a network under a hook; starts with nothing noted."""

    def forward(x: Any) -> Any:
        del HOOKS[:], CALLS[:]
        with hook(cls):
            return use(build, x)

    return hk.transform_with_state(forward)


def bridge(case: Case, train: bool) -> Any:
    return lambda name="net": built(case, train, name)


def leaves(tree: Any) -> dict[str, Any]:
    """Haiku's leaves by name, those that are arrays."""
    return {
        f"{module}/{name}": (leaf.shape, str(leaf.dtype))
        for module, bundle in tree.items()
        for name, leaf in bundle.items()
        if hasattr(leaf, "shape")
    }


def like_haiku(case: Case, use: Any, hook: Any, train: bool = True) -> None:
    """Leaves, names, what hooks are asked and what is written: as in plain Haiku."""
    case = outer(case)
    natively = runs(case, train)[1]
    if natively.error is not None:
        return
    if hook.__name__ == "policy" and not runs_cast(case, train):
        return
    if hook.__name__ == "casting_state_getter" and not runs_with_cast_state(
        case, train
    ):
        return
    if natively.outputs["[0]"][1:] != (X.shape, X.dtype):
        return  # most uses give it the output again
    with jax.disable_jit(False):  # else loops are unrolled, and all is written anew
        how = changes(case, runs(case, train)[1])
    if use.__name__ == "under_renaming" and how:
        return  # where the name of a collection goes is not Haiku's to say
    if use.__name__ == "vmapped" and "written" in how.values():
        return  # hk.vmap takes no state that depends on the batch
    written = {path for path, change in how.items() if change != "read"}
    f = network(twin(case, written), Twin, use, hook)
    try:
        theirs = jax.eval_shape(f.init, KEY, X)
    except Exception:
        return  # Haiku's own modules cannot be used so
    wanted = asked(theirs)
    g = network(bridge(case, train), hk_bridge.FlaxModule, use, hook)
    ours = jax.eval_shape(g.init, KEY, X)
    same_names(leaves(ours[0]), leaves(theirs[0]), "params")
    # Twins write nothing at init, and hk.layer_stack keeps what was written there as
    # getters give it.
    casting = {
        "casting_state_getter",
        "policy" if use.__name__ == "in_layer_stack" else "",
    }
    types = hook.__name__ not in casting
    same_names(leaves(ours[1]), leaves(theirs[1]), "state", types)
    often = use.__name__ == "reentrant"  # who was called inside is read again
    same_asked(made(asked(ours)), made(wanted), "init", often)
    ours, theirs = strong(ours), strong(theirs)
    natively = trace(lambda p, s, k: f.apply(p, s, k, X), *theirs, KEY)
    if natively.error is not None:
        return
    wanted = asked(theirs)
    found = trace(lambda p, s, k: g.apply(p, s, k, X), *ours, KEY)
    if found.error is not None and not has_gradient(case, train):
        return  # nor has it one natively
    assert found.error is None, f"apply raises {found.error!r}"
    same_asked(asked(ours), wanted, "apply", often)
    if use.__name__ not in OPAQUE:
        same_written(found, natively, how)


def has_gradient(case: Case, train: bool) -> bool:
    """Whether Flax itself can differentiate the module by its input."""

    def loss(x: Any, variables: Any, rngs: Any) -> Any:
        module = case.make(train)
        return total(module.apply(variables, x, rngs=rngs, mutable=True)[0])

    run = trace(lambda v, r: jax.grad(loss)(X, v, r), case.specs, case.rngs())
    return run.error is None


def asked(trees: Any) -> Asked:
    """What hooks were asked about each leaf that is an array, in order."""
    names = {**leaves(trees[0]), **leaves(trees[1])}
    found: Asked = {}
    for entry in HOOKS:
        if entry[0] in ("params_dict", "state_dict"):
            entry = (entry[0], tuple(name for name in entry[1] if name in names))
        if entry[0] in ("params_dict", "state_dict", "text"):
            found.setdefault(entry[0], []).append(entry)
        elif entry[1] in names:
            found.setdefault(entry[1], []).append(entry)
    return found


def runs_in_haiku(case: Case, use: Any, hook: Any, train: bool = True) -> None:
    """Init and apply raise nothing: all that some scripts need of `like_haiku`."""
    g = network(bridge(outer(case), train), hk_bridge.FlaxModule, use, hook)
    params, state = jax.eval_shape(g.init, KEY, X)
    jax.eval_shape(g.apply, params, state, KEY, X)


def runs_cast(case: Case, train: bool) -> bool:
    """Whether Flax runs the module under a policy, with the types of the twin."""

    def apply(variables: Any, rngs: Any) -> Any:
        module = case.make(train)
        return module.apply(cast(variables), cast(X), rngs=rngs, mutable=True)

    def init(rngs: Any) -> Any:
        return case.make(train).init(rngs, cast(X))

    start = open_boxes(case.specs)
    if trace(init, case.rngs(init=True)).error is not None:
        return False
    made = open_boxes(jax.eval_shape(init, case.rngs(init=True)))
    types = lambda tree: [getattr(x, "dtype", None) for x in jax.tree.leaves(tree)]
    if types(made) != types(start):
        return False
    return trace(apply, start, case.rngs()).error is None


def runs_with_cast_state(case: Case, train: bool) -> bool:
    """Whether Flax runs the module with state in another type: loops may refuse it."""

    def apply(variables: Any, rngs: Any) -> Any:
        variables = {c: t if c == "params" else cast(t) for c, t in variables.items()}
        return case.make(train).apply(variables, X, rngs=rngs, mutable=True)

    return trace(apply, open_boxes(case.specs), case.rngs()).error is None


def strong(specs: Any) -> Any:
    """Without weak types, which init may leave and no call keeps."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), specs)


def made(entries: Asked) -> Asked:
    """Without what setters were asked: twins write nothing at init."""
    left = {
        name: [entry for entry in found if not entry[0].startswith("set")]
        for name, found in entries.items()
    }
    return {name: found for name, found in left.items() if found}


def same_names(ours: Any, theirs: Any, kind: str, types: bool = True) -> None:
    extra, missing = sorted(set(ours) - set(theirs)), sorted(set(theirs) - set(ours))
    assert not extra, f"{kind} not in Haiku's: {extra}, missing: {missing}"
    assert not missing, f"{kind} missing: {missing}"
    size = 2 if types else 1
    differ = {
        k: (ours[k], theirs[k]) for k in ours if ours[k][:size] != theirs[k][:size]
    }
    assert not differ, f"{kind} of other types: {differ}"


def same_asked(ours: Asked, theirs: Asked, when: str, often: bool) -> None:
    for name in [*theirs, *ours]:
        found, wanted = ours.get(name, []), theirs.get(name, [])
        if often:
            found, wanted = ({entry[:2] for entry in e} for e in (found, wanted))
        assert found == wanted, f"at {when} hooks were asked {found}, not {wanted}"


def same_written(ours: Run, theirs: Run, how: Any) -> None:
    """State that native code reads, or counts up, ends as in Haiku."""
    told = {"written"}
    for path in theirs.outputs:
        ways = [way for where, way in how.items() if f"[{str(where[-1])!r}]" in path]
        if not path.startswith("[1]") or not ways or told & set(ways):
            continue
        if path.endswith(("['left']", "['right']")):
            continue  # of a Mapping Haiku makes a dict, and the bridge does not
        assert ours.outputs.get(path) == theirs.outputs[path], (
            f"state that is {ways[0]} ends otherwise: {path} "
            f"{ours.outputs.get(path)} != {theirs.outputs[path]}"
        )


def hooked_values(case: Case, hook: Any, train: bool = True) -> None:
    """Under a getter the module computes with what the getter gives."""

    def hooked(variables: Any) -> Any:
        mapped = {c: MAPS[hook](v) for c, v in variables.items() if c == "params"}
        return open_boxes({**variables, **mapped})

    start = open_boxes(case.specs)
    natively = trace(
        lambda variables, rngs: case.make(train).apply(
            hooked(variables),
            X,
            rngs=rngs,
            mutable=[c for c in variables if c != "params"],
            **case.natively,
        )[0],
        start,
        case.rngs(),
    )

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)

        def forward(rngs: Any) -> Any:
            with hook(hk_bridge.FlaxModule):
                net = built(case, train)
                return net(X, rngs=rngs, **case.natively)

        f = hk.transform_with_state(forward)
        return f.apply(params, state, None, rngs)[0]

    same(trace(ours, start, case.rngs()), natively)


def own_leaves(case: Case, hook: Any) -> None:
    """Leaves that Flax did not make are not among its variables."""

    def init(rngs: Any) -> Any:
        return native_init(case, rngs)

    def apply(rngs: Any) -> Any:
        start = init(rngs)
        kept = [c for c in start if c != "params"] or False
        options = {"rngs": rngs, "mutable": kept, **case.natively}
        return case.make().apply(start, X, **options)

    rngs = case.rngs(init=True)
    natively = [trace(in_haiku(case, init), rngs)]
    natively.append(
        trace(in_haiku(case, apply), rngs) if case.asks_haiku else runs(case)[1]
    )
    if any(run.error is not None for run in natively):
        return
    found: list[Any] = []

    def use(build: Any, rngs: Any) -> Any:
        net = build()
        y = net(X, rngs=rngs, **case.natively)
        found.append(set(by_path(net.variables)))
        return y

    f = network(bridge(case, True), hk_bridge.FlaxModule, use, hook)
    made = trace(f.init, KEY, rngs)
    assert made.error is None, f"init raises {made.error!r}"
    params, state = jax.eval_shape(f.init, KEY, rngs)
    applied = trace(lambda p, s, k, r: f.apply(p, s, k, r)[0], params, state, KEY, rngs)
    assert applied.error is None, f"apply raises {applied.error!r}"
    for when, paths in (("init", found[0]), ("apply", found[-1])):
        extra = sorted(paths - set(natively[0].outputs))
        assert not extra, f"variables at {when} hold leaves not of Flax: {extra}"
    if not case.asks_haiku:
        pairs = zip((made, applied), natively, strict=True)
        for when, (ours, theirs) in zip(("init", "apply"), pairs, strict=True):
            saw = f"the code saw at {when} {ours.saw}, natively {theirs.saw}"
            again = len(ours.saw) != len(theirs.saw)
            assert again or ours.saw == theirs.saw, saw


def in_haiku(case: Case, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, in a transform of Haiku if the module asks for one."""
    if not case.asks_haiku:
        return function

    def inside(*args: Any) -> Any:
        f = hk.transform_with_state(lambda: function(*args))
        return f.apply(*f.init(KEY), KEY)[0]

    return inside


def given(case: Case, part: Any) -> None:
    """`variables=` gives initial values, whole or in part."""
    start = open_boxes(case.specs)
    values = jax.tree.map(part, start)

    def forward(rngs: Any) -> Any:
        net = built(case, variables=values)
        return net(X, rngs=rngs)

    f = hk.transform_with_state(forward)
    params, state = jax.eval_shape(f.init, None, case.rngs(init=True))
    made = hk_bridge.to_flax(params, state, name="net")
    differ = sorted(set(by_path(made)) ^ set(by_path(start)))
    assert not differ, f"leaves not of Flax, or missing: {differ}"


def numbers(spec: Any) -> Any:
    """Python numbers for scalars."""
    is_number = spec.shape == () and spec.dtype == jnp.float32
    return 0.5 if is_number else zeros(spec)
