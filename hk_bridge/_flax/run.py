"""Running a method of a module, bound to a Scope of ours."""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
from typing import Any

import flax.linen as nn

from hk_bridge import _layout
from hk_bridge._flax.bind import bind
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.keys import LinenStreams
from hk_bridge._flax.plan import NOT_AT_INIT
from hk_bridge._flax.plan import Outcome
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import in_filter
from hk_bridge._flax.running import Running
from hk_bridge._flax.scope import Scope


class _Nobody(nn.Module):
    """A module for nn.apply, where only what it sets up is wanted."""


def run(
    plan: Plan,
    variables: dict[str, Any],
    host: Host,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    begin: Callable[[dict[str, Any], Record], None] = lambda variables, record: None,
) -> Outcome:
    """Runs the function of `plan` bound to `variables`, which change in place.

    Args:
      begin: is told, before anything runs, where variables and what happened will be.
    """
    root = Scope.root_of(host, plan.mutable, variables, type(plan.module))
    running = root.running
    begin(variables, running.record)

    def body(_: Any) -> Any:
        return plan.function(bind(plan.module, root), *args, **kwargs)

    with root.temporary(), _observed(running), running.watch.until_end():
        if plan.capture:
            # nn.apply sets up the capture, which holds for all that runs inside.
            output, _ = nn.apply(body, _Nobody(), False, plan.capture)({})
        else:
            output = body(None)
    running.end()
    if host.reads_late and in_filter(plan.mutable, _layout.PARAMS):
        host.read_rest(variables)
    return Outcome(output, variables, running.record)


def init(
    module: nn.Module,
    function: Callable[..., Any],
    rngs: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[dict[str, Any], frozenset[str]]:
    """What `module.init` gives, without Haiku, and the collections sown into."""
    plan = Plan(module, function, NOT_AT_INIT)
    host = Alone(LinenStreams(module, rngs, None, initializing=True))
    outcome = run(plan, {}, host, args, kwargs)
    return outcome.variables, frozenset(outcome.record.sown)


def _observed(running: Running) -> contextlib.AbstractContextManager[None]:
    """Has the host run the methods of submodules, where somebody watches."""
    if not running.host.observes:
        return contextlib.nullcontext()

    def interceptor(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module, name = context.module, context.method_name
        here = module.scope is not None and running.leads_here(module.scope)
        if not (here and module.path) or name == "setup":
            return run(*args, **kwargs)
        return running.host.observe(module.path, module, name, run, args, kwargs)

    return nn.intercept_methods(interceptor)
