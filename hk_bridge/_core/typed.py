"""What type checkers and editors see of `wrap`. Nothing here is ever built."""

# mypy: disable-error-code="empty-body, override, overload-cannot-match"
# pyright: reportIncompatibleMethodOverride=false, reportReturnType=false

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import Generic
from typing import ParamSpec
from typing import Protocol
from typing import TypeVar
from typing import overload

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._core.module import FlaxModule

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
M = TypeVar("M", covariant=True)
Instance = TypeVar("Instance", covariant=True)
Plain = TypeVar("Plain")
Cell = TypeVar("Cell", bound="_flax.linen.RNNCellBase")
Graph = TypeVar("Graph", bound="_flax.AnyGraph")


class Wrapped(FlaxModule, Generic[M]):
    """An instance of the Haiku class of the Flax class `M`."""

    flax_class: Any

    @property
    def module(self) -> M: ...
    # What the Flax class returns, with its arguments; with options of Haiku's, too.
    @overload
    def __call__(
        self: "Wrapped[Callable[Q, R]]", *args: Q.args, **kwargs: Q.kwargs
    ) -> R: ...
    @overload
    def __call__(self, *args: Any, method: Any, **kwargs: Any) -> Any: ...
    @overload
    def __call__(
        self: "Wrapped[Callable[..., R]]",
        *args: Any,
        mutable: Collection[str],
        **kwargs: Any,
    ) -> tuple[R, dict[str, Any]]: ...
    @overload
    def __call__(self, *args: Any, mutable: Any, **kwargs: Any) -> Any: ...
    @overload
    def __call__(
        self: "Wrapped[Callable[..., R]]", *args: Any, rngs: Any, **kwargs: Any
    ) -> R: ...
    @overload
    def __call__(
        self: "Wrapped[Callable[..., R]]",
        *args: Any,
        capture_intermediates: Any,
        **kwargs: Any,
    ) -> R: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...


class WrappedCell(Wrapped[M], _haiku.RNNCore):
    """A recurrent cell, called in Haiku's order."""

    def __call__(
        self, inputs: Any, prev_state: Any, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]: ...
    def initial_state(self, batch_size: int | None) -> Any: ...


class HaikuClass(type, Generic[Instance, P]):
    """A class with the constructor of the Flax class, and with `variables=`.

    Its instances are `Instance`, those of a recurrent cell a `WrappedCell`."""

    flax_class: Any

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Instance: ...
    @overload
    def __call__(
        self, *args: Any, variables: Mapping[str, Any] | None, **kwargs: Any
    ) -> Instance: ...
    @overload
    def __call__(self, *args: Any, transient: Any, **kwargs: Any) -> Instance: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class GraphClass(HaikuClass[Instance, P]):
    """The class of an NNX module, which needs no `rngs`."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Instance: ...
    @overload
    def __call__(self, *args: Any, rngs: None = None, **kwargs: Any) -> Instance: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class Wrap(Protocol):
    """`wrap`, by the kind of the class."""

    @overload
    def __call__(self, cls: Callable[P, Cell]) -> HaikuClass[WrappedCell[Cell], P]: ...
    @overload
    def __call__(self, cls: Callable[P, Graph]) -> GraphClass[Wrapped[Graph], P]: ...
    @overload
    def __call__(self, cls: Callable[P, Plain]) -> HaikuClass[Wrapped[Plain], P]: ...


# As mypy and pyright have it; jedi reads what it is, and the annotations of `wrap`.
TYPE_CHECKING = not __name__
if TYPE_CHECKING:

    def declared(wrap: Any) -> Wrap: ...

else:

    def declared(wrap):
        return wrap
