"""`match`: which leaf of a native Haiku network is which leaf of a Flax module."""

from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any

import jax

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge.migrate._matching.bar import bar
from hk_bridge.migrate._matching.leaf_table import LeafTable
from hk_bridge.migrate._matching.outcome import outcome
from hk_bridge.migrate._matching.parting import Parting
from hk_bridge.migrate._matching.proof import Proof
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.solve import solve
from hk_bridge.migrate._matching.trace import Given
from hk_bridge.migrate._matching.trace import flax_network
from hk_bridge.migrate._matching.trace import haiku_network
from hk_bridge.migrate._matching.trace import variables_of

Bundles = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Match:
    """Which leaf of Haiku is which of Flax, proven, or where the networks part.

    Attributes:
      ok: whether all leaves are found, and both networks proven to be the same.
      params: Haiku params with the weights of Flax, as far as they are found.
      state: Haiku state, likewise.
      parting: where the networks part; None if they do not.
      proof: the distances of outputs, inner values and gradients; None if the networks
        part.
      missing: leaves of Haiku that were not found.
      unused: leaves of Flax that no leaf of Haiku is.
      ambiguous: leaves of Flax that cannot be told apart, in groups: others of a
        group would have done as well.
      tried: how many choices were tried.

    >>> import flax.linen as nn, haiku as hk, hk_bridge, jax, jax.numpy as jnp
    >>> x = jnp.ones([2, 3])
    >>> variables = nn.Dense(4).init(jax.random.key(0), x)
    >>> net = hk.transform(lambda x: hk.Linear(4)(x))
    >>> found = hk_bridge.migrate.match(nn.Dense(4), variables, net, x)
    >>> found.ok, found.params["linear"]["w"].shape
    (True, (3, 4))
    """

    ok: bool
    params: Bundles
    state: Bundles
    parting: Parting | None
    proof: Proof | None
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    ambiguous: tuple[tuple[str, ...], ...]
    tried: int
    _table: LeafTable
    _variables: Mapping[str, Any]

    def table(self) -> LeafTable:
        """Which leaf is which, as a table that can be saved, edited and applied.

        Returns:
          A table with a row for each leaf of Haiku that was found.
        """
        return self._table

    def to_flax(
        self, params: Mapping[str, Any] | None, state: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The variables of Flax with these weights of Haiku.

        What Haiku's network does not have is as it was given to `match`.

        Args:
          params: Haiku params, those of this match or trained since.
          state: Haiku state, likewise.

        Returns:
          `{collection: nested dict}`, new plain dicts.

        Raises:
          MatchError: a leaf is missing, or has another shape.
        """
        return self._table.to_flax(params, state, like=self._variables)

    def __repr__(self) -> str:
        lines = [self._head()]
        if self.parting is not None:
            lines.append(str(self.parting))
        if self.proof is not None:
            lines.append(str(self.proof))
        for title, names in (("not found", self.missing), ("not used", self.unused)):
            if names:
                shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                lines.append(f"{title}: {shown}")
        for group in self.ambiguous:
            lines.append(f"cannot be told apart: {', '.join(group)}")
        return "\n".join([*lines, "", repr(self._table)])

    def _head(self) -> str:
        total = len({row.haiku for row in self._table.rows})
        found = f"{total - len(self.missing)} of {total} leaves of Haiku found"
        if self.ok:
            return f"The networks are the same: {found}, after {self.tried} choices."
        if self.proof is not None and self.proof.holds:
            return f"The networks give the same, but only {found}."
        return f"The networks are not proven to be the same: {found}."


def match(
    flax_module: Any,
    variables: Any,
    transformed: Any,
    *args: Any,
    flax_kwargs: Mapping[str, Any] | None = None,
    haiku_kwargs: Mapping[str, Any] | None = None,
    init_kwargs: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **kwargs: Any,
) -> Match:
    """Which leaf of a native Haiku network is which leaf of a Flax module.

    Both programs are traced and followed from their inputs on, in float64, with weights
    much like those given: a leaf is what stands in the same place, beside the same
    values. Names do not matter. Then both networks are run as they are, with the
    weights that were found, and outputs, inner values and gradients compared.

    A leaf of Haiku may be one of Flax turned (`.T`, `.transpose`, `.reshape`), a part
    of one, or joined of several (fused queries, keys and values; the gates of an LSTM;
    the weights of layers stacked for a scan); a number may be added (Haiku's forget
    gate has 1 more). BatchNorm's `hidden` and `average` are linen's one statistic. What
    is cut out of one leaf may be cut out in another order, features be flattened in
    another, heads be one leaf or several, and a number stand before a layer for one
    after it. State that meets no input, a counter, is told by what is left of it.

    Where an inner value is none of Flax's, the rest is taken by form and place, and
    tried: if outputs and gradients are then the same, so are the networks.

    What it cannot do, and why:

    * Tell leaves apart that are the same for every program: two branches of one form
      whose results are added. They are listed in `ambiguous`; each choice is right.
    * Follow a data-dependent `while` or `cond` into its body: loops are written out
      only where their length is known. Weights read in there are not found.
    * See what the given inputs do not reach: a branch for other static arguments, a
      mask that is all ones. Whole numbers are not changed: give tokens that differ.
    * Find a leaf that is computed from several: a LoRA that is merged on one side, a
      bias that is the sum of two, a complex weight of two real ones.
    * Cut a leaf where neither program does: one layer for two of Flax whose results are
      joined at once, a grouped convolution written as one for each group, the taps of a
      convolution as a product each.
    * Fold a number into a part of a bias whose parts have another order, too.
    * Tell a mistake from another order of features, where weights in that order give
      the same: heads that are reshaped otherwise are then other weights, not a fault.
    * Go on as surely where the networks part. What comes after the first parting is
      found by form and place; only the first parting is reported.
    * Hold two leaves of Haiku together that are one of Flax, as where weights are tied
      there alone. Trained apart, they have no way back: `to_flax` refuses them.
    * Compare precision: inner values are compared in float64, whatever dtypes the
      layers compute in. `proof.outputs` tells how far apart rounding leads.
    * Match outputs by their names: they are taken in the order of `jax.tree.leaves`,
      and have to be as many, of the same shapes and dtypes.
    * Compare networks that draw random numbers: give `deterministic=True` and the like.

    Args:
      flax_module: a linen module, or an NNX module instance.
      variables: its variables, or an `nnx.State`; None for those that it holds.
      transformed: of `hk.transform` or `hk.transform_with_state`, with or without
        `hk.without_apply_rng`.
      *args: what both are called with, arrays that are not all alike.
      flax_kwargs: keywords for Flax alone, `{"train": False}`.
      haiku_kwargs: keywords for Haiku alone, `{"is_training": False}`.
      init_kwargs: keywords for Haiku's `init` alone, in place of those. `hk.BatchNorm`
        needs none: it is initialised as in training.
      progress: whether to show a bar on stderr (tqdm); by default only in a terminal,
        for large programs, if tqdm is installed.
      **kwargs: keywords for both.

    Returns:
      The match. Its `ok` says whether all was found and proven; print it for more.

    Raises:
      MatchError: `transformed` is none.
      ModuleTypeError: `flax_module` is no module instance.
      VariablesError: `variables` have not the form of variables.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (2, 3))
    >>> module = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])
    >>> variables = module.init(jax.random.key(1), x)
    >>> net = hk.transform(lambda x: hk.nets.MLP([4, 2], activation=jnp.tanh)(x))
    >>> found = match(module, variables, net, x)
    >>> found.ok, found.proof.exact
    (True, True)
    >>> found.table()
    Haiku                    shape   Flax                    shape   turned by
    -----------------------  ------  ----------------------  ------  ---------
    params/mlp/~/linear_0/b  (4,)    params/layers_0/bias    (4,)
    params/mlp/~/linear_0/w  (3, 4)  params/layers_0/kernel  (3, 4)
    params/mlp/~/linear_1/b  (2,)    params/layers_2/bias    (2,)
    params/mlp/~/linear_1/w  (4, 2)  params/layers_2/kernel  (4, 2)
    """
    if not (hasattr(transformed, "init") and hasattr(transformed, "apply")):
        raise _errors.no_haiku_network(transformed)
    given = Given(
        args,
        kwargs,
        dict(flax_kwargs or {}),
        dict(haiku_kwargs or {}),
        dict(init_kwargs or {}),
    )
    variables = variables_of(flax_module, variables)
    with _noted("Flax"):
        flax = flax_network(flax_module, variables, given)
    with _noted("Haiku"):
        haiku = haiku_network(transformed, given)
    inputs = [x for x in jax.tree.leaves((args, kwargs)) if _abstract.is_array(x)]

    def search(small: bool) -> Solved:
        with bar(progress) as tick:
            return solve(flax, haiku, inputs, tick, small=small)

    made = outcome(search, flax, haiku, given, variables)
    used = {row.flax for row in made.table.rows}
    return Match(
        ok=made.proof is not None and made.proof.holds and not made.missing,
        params=made.params,
        state=made.state,
        parting=made.parting,
        proof=made.proof,
        missing=made.missing,
        unused=tuple(name for name in flax.leaves if name not in used),
        ambiguous=made.ambiguous,
        tried=made.tried,
        _table=made.table,
        _variables=variables,
    )


@contextlib.contextmanager
def _noted(side: str) -> Any:
    try:
        yield
    except (_errors.MatchError, _errors.VariablesError, _errors.ModuleTypeError):
        raise
    except Exception as error:
        error.add_note(_errors.not_called(side, error))
        raise
