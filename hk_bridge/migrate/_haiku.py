"""`load_haiku` and `save_haiku`: the params and state of Haiku's own code bases."""

from collections.abc import Mapping
import pathlib
from typing import Any
from typing import Literal

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate import _remote
from hk_bridge.migrate import _spellings
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._place import reading
from hk_bridge.migrate._put import check_dtype
from hk_bridge.migrate._put import put
from hk_bridge.migrate._save import keep
from hk_bridge.migrate._save import prepared
from hk_bridge.migrate.formats import SHARDED
from hk_bridge.migrate.formats import WRITTEN
from hk_bridge.migrate.formats import for_saving

Bundles = dict[str, dict[str, Any]]
Names = Literal["hk_bridge", "plain", "dotted", "alphafold", "weathernext"]


def load_haiku(
    path: Path,
    *,
    step: int | None = None,
    dtype: Any = None,
    progress: bool | None = None,
) -> tuple[Bundles, Bundles]:
    """Haiku's `(params, state)` out of a checkpoint of a Haiku code base.

    Read are, by what the file says of itself and by nothing else:

    * flat names in `.npz` and `.safetensors`: those of `save_haiku` and of `python -m
      hk_bridge convert`; AlphaFold's `scope//name`; WeatherNext's and GraphCast's
      `params:module/~/linear:w`, which has other things beside; SAbR's
      `module/~/linear.w`; plain `module/~/linear/w`;
    * trees in msgpack, Orbax, pickles and joblib's dumps, acme's `array_nest`, and the
      recipe `arrays.npy` with `tree.pkl`: params alone, the pair `(params, state)`, or
      a dict or a list of the two with others (`opt_state`) beside.

    Pickles are read without running what they name: arrays of NumPy and of JAX of any
    age, dicts and Haiku's mappings; any other name is an error that says it.

    Args:
      path: a file or a directory.
      step: which one of a folder of steps.
      dtype: what floating-point leaves are cast to.
      progress: as for `load`.

    Returns:
      `(params, state)`, each `{module name: {leaf name: array}}`; state is `{}` if the
      file has none.

    Raises:
      FileNotFoundError: nothing is at `path`.
      CheckpointError: what is there is no whole checkpoint, or not of Haiku's.
      ModuleNotFoundError: the format's library is not installed.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.savez(f"{folder.name}/net.npz", **{"mlp/~/linear/w": np.ones(2)})
    >>> load_haiku(f"{folder.name}/net.npz")
    ({'mlp/~/linear': {'w': array([1., 1.])}}, {})
    >>> folder.cleanup()
    """
    check_dtype(dtype)
    with _remote.at_hand(path) as local, reading(local, step) as place:
        tree = place.read(Ask(), progress)
        if isinstance(tree, Flat):
            params, state = _spellings.read(tree)
        else:
            params, state = pair(tree, place.path)
        return (
            put(params, ("params",), None, dtype),
            put(state, ("state",), None, dtype),
        )


def pair(tree: Any, path: pathlib.Path) -> tuple[Any, Any]:
    """`(params, state)` of what was saved: the two, or params alone."""
    given, two = tree, True
    if isinstance(tree, (list, tuple)) and tree:
        tree = dict(zip(("params", "state", *range(len(tree))), tree, strict=False))
    elif isinstance(tree, Mapping) and tree and set(tree) <= {"0", "1"}:
        tree = {"params": tree.get("0"), "state": tree.get("1")}  # a tuple, in msgpack
    else:
        two = False
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"{path} is no checkpoint of Haiku's. {_wrong(given)}")
    both = set(tree) <= {"params", "state"} and all(
        map(_layout.are_bundles, tree.values())
    )
    flaxs = sorted(_layout.FLAXS_OWN.intersection(tree) - {"params"}, key=str)
    if "params" in tree and "state" not in tree and flaxs:  # would be lost
        raise CheckpointError(
            f"{path} is no checkpoint of Haiku's: beside 'params' is {flaxs[0]!r}, a "
            "collection of Flax. Use hk_bridge.migrate.load and save."
        )
    if "params" in tree and (two or both or not _layout.are_bundles(tree)):
        params, state = tree["params"], tree.get("state")
    else:
        params, state = tree, None
    state = {} if state is None else state
    for which, bundles in (("params", params), ("state", state)):
        if not _layout.are_bundles(bundles):
            told = _wrong(bundles, which)
            raise CheckpointError(f"{path} is no checkpoint of Haiku's. {told}")
    return dict(params), dict(state)


def _wrong(tree: Any, which: str = "params") -> str:
    has = f"a {type(tree).__name__}"
    if isinstance(tree, Mapping):
        names = ", ".join(map(repr, list(tree)[:4]))
        has = f"a dict with {names} on top" if names else "an empty dict"
    return (
        f"For {which}, {{module name: {{name: array}}}} was expected, but got {has}. "
        "If this is Flax's, use hk_bridge.migrate.load and save."
    )


def save_haiku(
    path: Path,
    params: Mapping[str, Mapping[str, Any]],
    state: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    names: Names = "hk_bridge",
    progress: bool | None = None,
) -> None:
    """Keeps Haiku's params and state in a checkpoint that `load_haiku` gives back.

    It is whole or not there, as with `save`. Pickles are not written.

    Args:
      path: where to; see the module for formats.
      params: `{module name: {leaf name: array}}`.
      state: likewise.
      names: how flat names are spelled: `"alphafold"` is `scope//name`, `"weathernext"`
        is `params:module/~/linear:w`, `"dotted"` is `module/~/linear.w`, `"plain"` is
        `module/~/linear/w`. By default so that any name can be read. In formats that
        hold trees it changes nothing.
      progress: as for `load`.

    Raises:
      VariablesError: there is a leaf or a name that the format cannot hold, or state,
        which all but the default and `"weathernext"` have no place for.
      FileExistsError, OSError, CheckpointError, ModuleNotFoundError: as `save`.

    >>> import numpy as np, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = f"{folder.name}/net.npz"
    >>> save_haiku(path, {"mlp/~/linear": {"w": np.ones(2)}}, names="alphafold")
    >>> list(np.load(path))
    ['mlp/~/linear//w']
    >>> folder.cleanup()
    """
    _spellings.check_names(names)
    tree = {"params": params, "state": {} if state is None else state}
    for which, bundles in tree.items():
        if not _layout.are_bundles(bundles):
            raise _errors.VariablesError(_wrong(bundles, which))
    tree = {k: {m: dict(b) for m, b in part.items()} for k, part in tree.items()}
    with _remote.from_hand(path) as local:
        kind = for_saving(local)
        if kind is SHARDED:  # whose names `load_haiku` could not tell from Flax's
            raise CheckpointError(
                f"{path} is for parts of Flax's checkpoints alone, not of Haiku's. "
                f"Give it one of {', '.join(WRITTEN)}, or none for an Orbax directory."
            )
        checked = prepared(local, kind, tree)
        if kind.flat:
            checked = _spellings.written(checked, kind, names)
        keep(local, kind, checked, progress)
