"""One run of a module, and how its Scopes lead to it."""

from collections.abc import Callable
import itertools
from typing import Any
import weakref

from flax import core
from flax.core import scope as core_scope

from hk_bridge._flax import lifted
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record

FLAG = "hk_bridge"
_numbers = itertools.count()


class _Lead:
    """Leads from the flags of a Scope to its run.

    Leads are equal, so that `nn.jit`, which goes by the flags, traces once; but where
    somebody watches, a trace in which nobody did will not do."""

    def __init__(self, running: "Running"):
        # The run holds its flags: a strong reference back would keep it alive.
        self.running = weakref.ref(running)
        host, known = running.host, lifted.told.get(running.cls)
        doubts = bool(lifted.untold) and host.hooked
        # Flax keeps but a hash: that of an object() is its address, which returns.
        self._watched = known if doubts else None
        if host.observes or (doubts and known is None):
            self._watched = next(_numbers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Lead) and self._watched == other._watched

    def __hash__(self) -> int:
        return hash(self._watched)

    def clear(self, cls: type) -> None:
        """The run of `cls` has ended: whether its traces tell is known by now."""
        if self._watched is not None and cls not in lifted.untold:
            lifted.told.setdefault(cls, self._watched)

    def leads_from(self, scope: core.Scope) -> bool:
        return scope.flags.get(FLAG) is self


class Running:
    """One run of a module: who answers, what may change, what has happened.

    Attributes:
      host: answers.
      mutable: the collections that may change.
      record: what happened.
      watch: sees lifted transforms.
      leads_here: whether a Scope is of this run, and not of an `apply` inside it.
      flags: of all Scopes of the run.

    Args:
      adopt: makes a plain Scope one of ours.
      cls: the class of the module that runs.
    """

    def __init__(
        self,
        host: Host,
        mutable: core_scope.CollectionFilter,
        adopt: Callable[[core.Scope], None],
        cls: type,
    ):
        self.host = host
        self.cls = cls
        self.mutable = mutable
        self.record = Record()
        lead = _Lead(self)
        self.leads_here = lead.leads_from
        self.watch = lifted.Watch(lead.leads_from, adopt)
        initializing = {"initializing": True} if host.initializing else {}
        # By their ids; to keep modules would keep the tracers of lifted transforms.
        self._called: dict[int, weakref.ref[Any]] = {}
        self.flags: Any = core.FrozenDict({**initializing, FLAG: lead})

    def end(self) -> None:
        """Is to be called when the module has run.

        A program may hold a Scope, for `nn.custom_vjp`: then it holds no module."""
        self.flags[FLAG].clear(self.cls)
        self.host = Alone(self.host.streams.only(self.host.streams.keys, {}))
        self._called = {}
        self.cls = object

    def is_first_call(self, module: Any) -> bool:
        """Whether this was not asked of `module` before."""
        known = self._called.get(id(module))
        self._called[id(module)] = weakref.ref(module)
        return known is None or known() is not module
