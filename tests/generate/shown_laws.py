"""What Haiku's tools show of a network: its tables of modules, its tree of programs."""

from collections.abc import Iterator
from typing import Any

import haiku as hk
import jax

from .cases import KEY
from .cases import Case
from .cases import X
from .cases import total
from .compare import open_boxes
from .flax_laws import runs
from .haiku_laws import bridge
from .twin import changes
from .twin import is_level
from .twin import twin
from .uses import plain


def sizes(tree: Any) -> Any:
    """Shapes and types by name."""
    return {k: (v.shape, str(v.dtype)) for k, v in tree.items() if hasattr(v, "shape")}


def summary(f: Any) -> Any:
    """What is known of each call of the network."""
    return [
        (
            row.module_details.method_name,
            sizes(row.module_details.params),
            sizes(row.module_details.state),
            [str(spec) for spec in row.args_spec],
            [details.module.module_name for details in row.call_stack],
        )
        for row in hk.experimental.eval_summary(f)(X)
        if row.module_details.module.module_name == "net"
    ]


def table(f: Any) -> Any:
    """The sizes of the network in the table that is printed."""
    columns = ("module", "input", "params_size", "params_bytes")
    assert hk.experimental.tabulate(f)(X)
    text = hk.experimental.tabulate(f, columns=columns)(X)
    cells = [[c.strip() for c in line.split("|")] for line in text.splitlines()]
    return [row[2:] for row in cells if len(row) > 2 and row[1].startswith("net (")]


def model_info(f: Any) -> Any:
    """The parameters and the state of the network in the tree of its program."""
    params, state = jax.eval_shape(f.init, KEY, X)  # else the key is used up
    # Haiku runs it twice with the same arguments, at init and at apply.
    run = lambda p, s, key, x: total(f.apply(p, s, jax.random.clone(key), x))
    info = hk.experimental.jaxpr_info.make_model_info(run, name="model")(
        params, state, KEY, X
    )
    assert hk.experimental.jaxpr_info.format_module(info)
    return [
        (m.total_param_size, m.param_info, m.total_state_size, m.state_info)
        for m in modules(info)
        if m.name == "net"
    ]


def modules(module: Any) -> Iterator[Any]:
    yield module
    for expression in module.expressions:
        if expression.submodule is not None:
            yield from modules(expression.submodule)


def all_arrays(tree: Any) -> bool:
    """Whether all leaves are arrays, as Haiku's parameters are."""
    return hasattr(tree, "shape") or (
        is_level(tree) and all(map(all_arrays, tree.values()))
    )


def shown(case: Case, tool: Any) -> None:
    """Haiku's tools show what they show of plain Haiku modules."""
    natively, params = runs(case)[1], open_boxes(case.specs).get("params", {})
    if natively.error is not None or not all_arrays(params):
        return
    how = changes(case, natively)
    written = {path for path, change in how.items() if change != "read"}
    builds = twin(case, written), bridge(case, True)
    f, g = (
        hk.transform_with_state(lambda x, build=build: plain(build, x))
        for build in builds
    )
    try:
        wanted = tool(f)
    except Exception:
        return  # not made for such leaves
    if not wanted:
        return  # of a network without a leaf nothing is told
    found = tool(g)
    assert found == wanted, f"{tool.__name__} shows {found}, not {wanted}"
