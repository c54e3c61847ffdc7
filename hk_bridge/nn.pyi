"""Types of `hk_bridge.nn`. Made by `python -m tests.stub`."""

# Of flax 0.12.8.

# mypy: disable-error-code="override"
# pyright: reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, overload

import flax.linen as _linen
import haiku as _hk
import jax as _jax

from hk_bridge._core.module import FlaxModule as _FlaxModule

__all__ = [
    "BatchNorm",
    "Bidirectional",
    "Conv",
    "ConvLSTMCell",
    "ConvLocal",
    "ConvTranspose",
    "Dense",
    "DenseGeneral",
    "Dropout",
    "Einsum",
    "Embed",
    "Fp8DirectDotGeneralOp",
    "Fp8DotGeneral",
    "Fp8DotGeneralOp",
    "Fp8Einsum",
    "GRUCell",
    "GroupNorm",
    "InstanceNorm",
    "LSTMCell",
    "LayerNorm",
    "MGUCell",
    "MultiHeadAttention",
    "MultiHeadDotProductAttention",
    "NANOOFp8DotGeneralOp",
    "OptimizedLSTMCell",
    "PReLU",
    "RMSNorm",
    "RNN",
    "SelfAttention",
    "Sequential",
    "SimpleCell",
    "SpectralNorm",
    "WeightNorm",
]


class BatchNorm(_FlaxModule):
    """BatchNorm Module."""
    flax_class: ClassVar[type[_linen.BatchNorm]]
    use_running_average: bool | None
    axis: int
    momentum: float
    epsilon: float
    dtype: Any
    param_dtype: Any
    use_bias: bool
    use_scale: bool
    bias_init: Callable[..., Any]
    scale_init: Callable[..., Any]
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool
    @property
    def module(self) -> _linen.BatchNorm: ...
    def __init__(self, *, use_running_average: bool | None = ..., axis: int = ..., momentum: float = ..., epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., use_bias: bool = ..., use_scale: bool = ..., bias_init: Callable[..., Any] = ..., scale_init: Callable[..., Any] = ..., axis_name: str | None = ..., axis_index_groups: Any = ..., use_fast_variance: bool = ..., force_float32_reductions: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.BatchNorm`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, x: Any, *, use_running_average: Any = ..., mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, x: Any, *, use_running_average: Any = ..., mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, x: Any, *, use_running_average: Any = ..., mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Bidirectional(_FlaxModule):
    """Processes the input in both directions and merges the results."""
    flax_class: ClassVar[type[_linen.Bidirectional]]
    forward_rnn: Any
    backward_rnn: Any
    merge_fn: Callable[..., Any]
    time_major: bool
    return_carry: bool
    @property
    def module(self) -> _linen.Bidirectional: ...
    def __init__(self, forward_rnn: Any, backward_rnn: Any, merge_fn: Callable[..., Any] = ..., time_major: bool = ..., return_carry: bool = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.Bidirectional`, and `name=` is the Haiku name."""
    def __call__(self, inputs: Any, *, initial_carry: Any = ..., init_key: Any = ..., seq_lengths: Any = ..., return_carry: Any = ..., time_major: Any = ..., reverse: Any = ..., keep_order: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Conv(_FlaxModule):
    """Convolution Module wrapping ``lax.conv_general_dilated``."""
    flax_class: ClassVar[type[_linen.Conv]]
    features: int
    kernel_size: Sequence[int]
    strides: None | int | Sequence[int]
    padding: str | int | Sequence[Any]
    input_dilation: None | int | Sequence[int]
    kernel_dilation: None | int | Sequence[int]
    feature_group_count: int
    use_bias: bool
    mask: Any
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    promote_dtype: Any
    conv_general_dilated: Callable[..., Any] | None
    conv_general_dilated_cls: Any
    @property
    def module(self) -> _linen.Conv: ...
    def __init__(self, features: int, kernel_size: Sequence[int], strides: None | int | Sequence[int] = ..., *, padding: str | int | Sequence[Any] = ..., input_dilation: None | int | Sequence[int] = ..., kernel_dilation: None | int | Sequence[int] = ..., feature_group_count: int = ..., use_bias: bool = ..., mask: Any = ..., dtype: Any = ..., param_dtype: Any = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., promote_dtype: Any = ..., conv_general_dilated: Callable[..., Any] | None = ..., conv_general_dilated_cls: Any = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.Conv`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    @property
    def shared_weights(self) -> Any: ...

class ConvLSTMCell(_FlaxModule, _hk.RNNCore):
    """A convolutional LSTM cell."""
    flax_class: ClassVar[type[_linen.ConvLSTMCell]]
    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] | None
    padding: str | Sequence[Any]
    use_bias: bool
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    @property
    def module(self) -> _linen.ConvLSTMCell: ...
    def __init__(self, features: int, kernel_size: Sequence[int], strides: Sequence[int] | None = ..., padding: str | Sequence[Any] = ..., use_bias: bool = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.ConvLSTMCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class ConvLocal(_FlaxModule):
    """Local convolution Module wrapping ``lax.conv_general_dilated_local``."""
    flax_class: ClassVar[type[_linen.ConvLocal]]
    features: int
    kernel_size: Sequence[int]
    strides: None | int | Sequence[int]
    padding: str | int | Sequence[Any]
    input_dilation: None | int | Sequence[int]
    kernel_dilation: None | int | Sequence[int]
    feature_group_count: int
    use_bias: bool
    mask: Any
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    promote_dtype: Any
    conv_general_dilated: Callable[..., Any] | None
    conv_general_dilated_cls: Any
    @property
    def module(self) -> _linen.ConvLocal: ...
    def __init__(self, features: int, kernel_size: Sequence[int], strides: None | int | Sequence[int] = ..., *, padding: str | int | Sequence[Any] = ..., input_dilation: None | int | Sequence[int] = ..., kernel_dilation: None | int | Sequence[int] = ..., feature_group_count: int = ..., use_bias: bool = ..., mask: Any = ..., dtype: Any = ..., param_dtype: Any = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., promote_dtype: Any = ..., conv_general_dilated: Callable[..., Any] | None = ..., conv_general_dilated_cls: Any = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.ConvLocal`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    @property
    def shared_weights(self) -> Any: ...

class ConvTranspose(_FlaxModule):
    """Convolution Module wrapping ``lax.conv_transpose``."""
    flax_class: ClassVar[type[_linen.ConvTranspose]]
    features: int
    kernel_size: Sequence[int]
    strides: Sequence[int] | None
    padding: str | int | Sequence[Any]
    kernel_dilation: Sequence[int] | None
    use_bias: bool
    mask: Any
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    transpose_kernel: bool
    promote_dtype: Any
    preferred_element_type: Any
    @property
    def module(self) -> _linen.ConvTranspose: ...
    def __init__(self, features: int, kernel_size: Sequence[int], strides: Sequence[int] | None = ..., *, padding: str | int | Sequence[Any] = ..., kernel_dilation: Sequence[int] | None = ..., use_bias: bool = ..., mask: Any = ..., dtype: Any = ..., param_dtype: Any = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., transpose_kernel: bool = ..., promote_dtype: Any = ..., preferred_element_type: Any = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.ConvTranspose`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Dense(_FlaxModule):
    """A linear transformation applied over the last dimension of the input."""
    flax_class: ClassVar[type[_linen.Dense]]
    features: int
    use_bias: bool
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    promote_dtype: Any
    dot_general: Callable[..., Any] | None
    dot_general_cls: Any
    @property
    def module(self) -> _linen.Dense: ...
    def __init__(self, features: int, use_bias: bool = ..., *, dtype: Any = ..., param_dtype: Any = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., promote_dtype: Any = ..., dot_general: Callable[..., Any] | None = ..., dot_general_cls: Any = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.Dense`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class DenseGeneral(_FlaxModule):
    """A linear transformation with flexible axes."""
    flax_class: ClassVar[type[_linen.DenseGeneral]]
    features: int | Sequence[int]
    axis: int | Sequence[int]
    batch_dims: Sequence[int]
    use_bias: bool
    dtype: Any
    param_dtype: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    precision: Any
    promote_dtype: Any
    dot_general: Callable[..., Any] | None
    dot_general_cls: Any
    @property
    def module(self) -> _linen.DenseGeneral: ...
    def __init__(self, features: int | Sequence[int], axis: int | Sequence[int] = ..., batch_dims: Sequence[int] = ..., use_bias: bool = ..., dtype: Any = ..., param_dtype: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., precision: Any = ..., promote_dtype: Any = ..., dot_general: Callable[..., Any] | None = ..., dot_general_cls: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.DenseGeneral`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Dropout(_FlaxModule):
    """Create a dropout layer."""
    flax_class: ClassVar[type[_linen.Dropout]]
    rate: float
    broadcast_dims: Sequence[int]
    deterministic: bool | None
    rng_collection: str
    @property
    def module(self) -> _linen.Dropout: ...
    def __init__(self, rate: float, broadcast_dims: Sequence[int] = ..., deterministic: bool | None = ..., rng_collection: str = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.stochastic.Dropout`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, deterministic: Any = ..., rng: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, deterministic: Any = ..., rng: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, deterministic: Any = ..., rng: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Einsum(_FlaxModule):
    """An einsum transformation with learnable kernel and bias."""
    flax_class: ClassVar[type[_linen.Einsum]]
    shape: Sequence[int]
    einsum_str: str | None
    use_bias: bool
    dtype: Any
    param_dtype: Any
    precision: Any
    kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    promote_dtype: Any
    preferred_element_type: Any
    @property
    def module(self) -> _linen.Einsum: ...
    def __init__(self, shape: Sequence[int], einsum_str: str | None = ..., use_bias: bool = ..., dtype: Any = ..., param_dtype: Any = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., promote_dtype: Any = ..., preferred_element_type: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.Einsum`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, einsum_str: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, einsum_str: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, einsum_str: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Embed(_FlaxModule):
    """Embedding Module."""
    flax_class: ClassVar[type[_linen.Embed]]
    num_embeddings: int
    features: int
    dtype: Any
    param_dtype: Any
    embedding_init: Callable[..., Any]
    promote_dtype: Any
    @property
    def module(self) -> _linen.Embed: ...
    def __init__(self, num_embeddings: int, features: int, *, dtype: Any = ..., param_dtype: Any = ..., embedding_init: Callable[..., Any] = ..., promote_dtype: Any = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.linear.Embed`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def attend(self, query: Any, *, rngs: Any = ..., mutable: Any = ..., capture_intermediates: Any = ...) -> Any: ...

class Fp8DirectDotGeneralOp(_FlaxModule):
    """Flax's Fp8DirectDotGeneralOp."""
    flax_class: ClassVar[type[_linen.Fp8DirectDotGeneralOp]]
    amax_history_length: int
    e4m3_dtype: Any
    e5m2_dtype: Any
    @property
    def module(self) -> _linen.Fp8DirectDotGeneralOp: ...
    def __init__(self, amax_history_length: int = ..., e4m3_dtype: Any = ..., e5m2_dtype: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.fp8_ops.Fp8DirectDotGeneralOp`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...

Fp8DotGeneral = Fp8DirectDotGeneralOp
class Fp8DotGeneralOp(_FlaxModule):
    """Flax's Fp8DotGeneralOp."""
    flax_class: ClassVar[type[_linen.Fp8DotGeneralOp]]
    amax_history_length: int
    e4m3_dtype: Any
    e5m2_dtype: Any
    @property
    def module(self) -> _linen.Fp8DotGeneralOp: ...
    def __init__(self, amax_history_length: int = ..., e4m3_dtype: Any = ..., e5m2_dtype: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.fp8_ops.Fp8DotGeneralOp`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...

class Fp8Einsum(_FlaxModule):
    """Flax's Fp8Einsum."""
    flax_class: ClassVar[type[_linen.Fp8Einsum]]
    amax_history_length: int
    e4m3_dtype: Any
    e5m2_dtype: Any
    @property
    def module(self) -> _linen.Fp8Einsum: ...
    def __init__(self, amax_history_length: int = ..., e4m3_dtype: Any = ..., e5m2_dtype: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.fp8_ops.Fp8Einsum`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, eqn: Any, lhs: Any, rhs: Any, precision: Any = ..., preferred_element_type: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, eqn: Any, lhs: Any, rhs: Any, precision: Any = ..., preferred_element_type: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, eqn: Any, lhs: Any, rhs: Any, precision: Any = ..., preferred_element_type: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class GRUCell(_FlaxModule, _hk.RNNCore):
    """GRU cell."""
    flax_class: ClassVar[type[_linen.GRUCell]]
    features: int
    gate_fn: Callable[..., Any]
    activation_fn: Callable[..., Any]
    kernel_init: Callable[..., Any]
    recurrent_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    @property
    def module(self) -> _linen.GRUCell: ...
    def __init__(self, features: int, *, gate_fn: Callable[..., Any] = ..., activation_fn: Callable[..., Any] = ..., kernel_init: Callable[..., Any] = ..., recurrent_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.GRUCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class GroupNorm(_FlaxModule):
    """Group normalisation (arxiv.org/abs/1803.08494), run by `flax.linen.GroupNorm`."""
    flax_class: ClassVar[type[_linen.GroupNorm]]
    num_groups: int | None
    group_size: int | None
    epsilon: float
    dtype: Any
    use_bias: bool
    use_scale: bool
    bias_init: Callable[..., Any]
    scale_init: Callable[..., Any]
    param_dtype: Any
    reduction_axes: int | Sequence[int] | None
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool
    @property
    def module(self) -> _linen.GroupNorm: ...
    def __init__(self, *, num_groups: int | None = ..., group_size: int | None = ..., epsilon: float = ..., dtype: Any = ..., use_bias: bool = ..., use_scale: bool = ..., bias_init: Callable[..., Any] = ..., scale_init: Callable[..., Any] = ..., param_dtype: Any = ..., reduction_axes: int | Sequence[int] | None = ..., axis_name: str | None = ..., axis_index_groups: Any = ..., use_fast_variance: bool = ..., force_float32_reductions: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the layer; all but `name=` are the fields of `flax.linen.GroupNorm`."""
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class InstanceNorm(_FlaxModule):
    """Instance normalization (https://arxiv.org/abs/1607.08022v3)."""
    flax_class: ClassVar[type[_linen.InstanceNorm]]
    epsilon: float
    dtype: Any
    param_dtype: Any
    use_bias: bool
    use_scale: bool
    bias_init: Callable[..., Any]
    scale_init: Callable[..., Any]
    feature_axes: int | Sequence[int]
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool
    @property
    def module(self) -> _linen.InstanceNorm: ...
    def __init__(self, *, epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., use_bias: bool = ..., use_scale: bool = ..., bias_init: Callable[..., Any] = ..., scale_init: Callable[..., Any] = ..., feature_axes: int | Sequence[int] = ..., axis_name: str | None = ..., axis_index_groups: Any = ..., use_fast_variance: bool = ..., force_float32_reductions: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.InstanceNorm`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class LSTMCell(_FlaxModule, _hk.RNNCore):
    """LSTM cell."""
    flax_class: ClassVar[type[_linen.LSTMCell]]
    features: int
    gate_fn: Callable[..., Any]
    activation_fn: Callable[..., Any]
    kernel_init: Callable[..., Any]
    recurrent_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    @property
    def module(self) -> _linen.LSTMCell: ...
    def __init__(self, features: int, *, gate_fn: Callable[..., Any] = ..., activation_fn: Callable[..., Any] = ..., kernel_init: Callable[..., Any] = ..., recurrent_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.LSTMCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class LayerNorm(_FlaxModule):
    """Layer normalization (https://arxiv.org/abs/1607.06450)."""
    flax_class: ClassVar[type[_linen.LayerNorm]]
    epsilon: float
    dtype: Any
    param_dtype: Any
    use_bias: bool
    use_scale: bool
    bias_init: Callable[..., Any]
    scale_init: Callable[..., Any]
    reduction_axes: int | Sequence[int]
    feature_axes: int | Sequence[int]
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool
    @property
    def module(self) -> _linen.LayerNorm: ...
    def __init__(self, *, epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., use_bias: bool = ..., use_scale: bool = ..., bias_init: Callable[..., Any] = ..., scale_init: Callable[..., Any] = ..., reduction_axes: int | Sequence[int] = ..., feature_axes: int | Sequence[int] = ..., axis_name: str | None = ..., axis_index_groups: Any = ..., use_fast_variance: bool = ..., force_float32_reductions: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.LayerNorm`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class MGUCell(_FlaxModule, _hk.RNNCore):
    """MGU cell (https://arxiv.org/pdf/1603.09420.pdf)."""
    flax_class: ClassVar[type[_linen.MGUCell]]
    features: int
    gate_fn: Callable[..., Any]
    activation_fn: Callable[..., Any]
    kernel_init: Callable[..., Any]
    recurrent_kernel_init: Callable[..., Any]
    forget_bias_init: Callable[..., Any]
    activation_bias_init: Callable[..., Any]
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    reset_gate: bool
    @property
    def module(self) -> _linen.MGUCell: ...
    def __init__(self, features: int, gate_fn: Callable[..., Any] = ..., activation_fn: Callable[..., Any] = ..., kernel_init: Callable[..., Any] = ..., recurrent_kernel_init: Callable[..., Any] = ..., forget_bias_init: Callable[..., Any] = ..., activation_bias_init: Callable[..., Any] = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., reset_gate: bool = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.MGUCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class MultiHeadAttention(_FlaxModule):
    """Multi-head dot-product attention. Alias for ``MultiHeadDotProductAttention``."""
    flax_class: ClassVar[type[_linen.MultiHeadAttention]]
    num_heads: int
    dtype: Any
    param_dtype: Any
    qkv_features: int | None
    out_features: int | None
    broadcast_dropout: bool
    dropout_rate: float
    deterministic: bool | None
    precision: Any
    kernel_init: Callable[..., Any]
    out_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    out_bias_init: Callable[..., Any]
    use_bias: bool
    attention_fn: Callable[..., Any]
    decode: bool
    normalize_qk: bool
    force_fp32_for_softmax: bool
    qkv_dot_general: Callable[..., Any] | None
    out_dot_general: Callable[..., Any] | None
    qkv_dot_general_cls: Any
    out_dot_general_cls: Any
    qk_attn_weights_einsum_cls: Callable[..., Any] | None
    attn_weights_value_einsum_cls: Callable[..., Any] | None
    @property
    def module(self) -> _linen.MultiHeadAttention: ...
    def __init__(self, num_heads: int, *, dtype: Any = ..., param_dtype: Any = ..., qkv_features: int | None = ..., out_features: int | None = ..., broadcast_dropout: bool = ..., dropout_rate: float = ..., deterministic: bool | None = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., out_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., out_bias_init: Callable[..., Any] = ..., use_bias: bool = ..., attention_fn: Callable[..., Any] = ..., decode: bool = ..., normalize_qk: bool = ..., force_fp32_for_softmax: bool = ..., qkv_dot_general: Callable[..., Any] | None = ..., out_dot_general: Callable[..., Any] | None = ..., qkv_dot_general_cls: Any = ..., out_dot_general_cls: Any = ..., qk_attn_weights_einsum_cls: Callable[..., Any] | None = ..., attn_weights_value_einsum_cls: Callable[..., Any] | None = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.attention.MultiHeadAttention`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class MultiHeadDotProductAttention(_FlaxModule):
    """Multi-head dot-product attention."""
    flax_class: ClassVar[type[_linen.MultiHeadDotProductAttention]]
    num_heads: int
    dtype: Any
    param_dtype: Any
    qkv_features: int | None
    out_features: int | None
    broadcast_dropout: bool
    dropout_rate: float
    deterministic: bool | None
    precision: Any
    kernel_init: Callable[..., Any]
    out_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    out_bias_init: Callable[..., Any]
    use_bias: bool
    attention_fn: Callable[..., Any]
    decode: bool
    normalize_qk: bool
    force_fp32_for_softmax: bool
    qkv_dot_general: Callable[..., Any] | None
    out_dot_general: Callable[..., Any] | None
    qkv_dot_general_cls: Any
    out_dot_general_cls: Any
    qk_attn_weights_einsum_cls: Callable[..., Any] | None
    attn_weights_value_einsum_cls: Callable[..., Any] | None
    @property
    def module(self) -> _linen.MultiHeadDotProductAttention: ...
    def __init__(self, num_heads: int, *, dtype: Any = ..., param_dtype: Any = ..., qkv_features: int | None = ..., out_features: int | None = ..., broadcast_dropout: bool = ..., dropout_rate: float = ..., deterministic: bool | None = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., out_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., out_bias_init: Callable[..., Any] = ..., use_bias: bool = ..., attention_fn: Callable[..., Any] = ..., decode: bool = ..., normalize_qk: bool = ..., force_fp32_for_softmax: bool = ..., qkv_dot_general: Callable[..., Any] | None = ..., out_dot_general: Callable[..., Any] | None = ..., qkv_dot_general_cls: Any = ..., out_dot_general_cls: Any = ..., qk_attn_weights_einsum_cls: Callable[..., Any] | None = ..., attn_weights_value_einsum_cls: Callable[..., Any] | None = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.attention.MultiHeadDotProductAttention`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs_q: Any, inputs_k: Any = ..., inputs_v: Any = ..., *, inputs_kv: Any = ..., mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class NANOOFp8DotGeneralOp(_FlaxModule):
    """Flax's NANOOFp8DotGeneralOp."""
    flax_class: ClassVar[type[_linen.NANOOFp8DotGeneralOp]]
    amax_history_length: int
    e4m3_dtype: Any
    e5m2_dtype: Any
    @property
    def module(self) -> _linen.NANOOFp8DotGeneralOp: ...
    def __init__(self, amax_history_length: int = ..., e4m3_dtype: Any = ..., e5m2_dtype: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.fp8_ops.NANOOFp8DotGeneralOp`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...

class OptimizedLSTMCell(_FlaxModule, _hk.RNNCore):
    """More efficient LSTM Cell that concatenates state components before matmul."""
    flax_class: ClassVar[type[_linen.OptimizedLSTMCell]]
    features: int
    gate_fn: Callable[..., Any]
    activation_fn: Callable[..., Any]
    kernel_init: Callable[..., Any]
    recurrent_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    @property
    def module(self) -> _linen.OptimizedLSTMCell: ...
    def __init__(self, features: int, *, gate_fn: Callable[..., Any] = ..., activation_fn: Callable[..., Any] = ..., kernel_init: Callable[..., Any] = ..., recurrent_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.OptimizedLSTMCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class PReLU(_FlaxModule):
    """Parametric Rectified Linear Unit (PReLU) activation function."""
    flax_class: ClassVar[type[_linen.PReLU]]
    param_dtype: Any
    negative_slope_init: float
    @property
    def module(self) -> _linen.PReLU: ...
    def __init__(self, param_dtype: Any = ..., negative_slope_init: float = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.activation.PReLU`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class RMSNorm(_FlaxModule):
    """RMS Layer normalization (https://arxiv.org/abs/1910.07467)."""
    flax_class: ClassVar[type[_linen.RMSNorm]]
    epsilon: float
    dtype: Any
    param_dtype: Any
    use_scale: bool
    scale_init: Callable[..., Any]
    reduction_axes: int | Sequence[int]
    feature_axes: int | Sequence[int]
    axis_name: str | None
    axis_index_groups: Any
    use_fast_variance: bool
    force_float32_reductions: bool
    @property
    def module(self) -> _linen.RMSNorm: ...
    def __init__(self, *, epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., use_scale: bool = ..., scale_init: Callable[..., Any] = ..., reduction_axes: int | Sequence[int] = ..., feature_axes: int | Sequence[int] = ..., axis_name: str | None = ..., axis_index_groups: Any = ..., use_fast_variance: bool = ..., force_float32_reductions: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.RMSNorm`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, x: Any, *, mask: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class RNN(_FlaxModule):
    """The ``RNN`` module takes any :class:`RNNCellBase` instance and applies it over a sequence"""
    flax_class: ClassVar[type[_linen.RNN]]
    cell: Any
    time_major: bool
    return_carry: bool
    reverse: bool
    keep_order: bool
    unroll: int
    variable_axes: Any
    variable_broadcast: Any
    variable_carry: Any
    split_rngs: Any
    @property
    def module(self) -> _linen.RNN: ...
    def __init__(self, cell: Any, time_major: bool = ..., return_carry: bool = ..., reverse: bool = ..., keep_order: bool = ..., unroll: int = ..., variable_axes: Any = ..., variable_broadcast: Any = ..., variable_carry: Any = ..., split_rngs: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.RNN`, and `name=` is the Haiku name."""
    def __call__(self, inputs: Any, *, initial_carry: Any = ..., init_key: Any = ..., seq_lengths: Any = ..., return_carry: Any = ..., time_major: Any = ..., reverse: Any = ..., keep_order: Any = ..., rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class SelfAttention(_FlaxModule):
    """Self-attention special case of multi-head dot-product attention. This layer is deprecated in favor of ``MultiHeadDotProductAttention``."""
    flax_class: ClassVar[type[_linen.SelfAttention]]
    num_heads: int
    dtype: Any
    param_dtype: Any
    qkv_features: int | None
    out_features: int | None
    broadcast_dropout: bool
    dropout_rate: float
    deterministic: bool | None
    precision: Any
    kernel_init: Callable[..., Any]
    out_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    out_bias_init: Callable[..., Any]
    use_bias: bool
    attention_fn: Callable[..., Any]
    decode: bool
    normalize_qk: bool
    force_fp32_for_softmax: bool
    qkv_dot_general: Callable[..., Any] | None
    out_dot_general: Callable[..., Any] | None
    qkv_dot_general_cls: Any
    out_dot_general_cls: Any
    qk_attn_weights_einsum_cls: Callable[..., Any] | None
    attn_weights_value_einsum_cls: Callable[..., Any] | None
    @property
    def module(self) -> _linen.SelfAttention: ...
    def __init__(self, num_heads: int, dtype: Any = ..., param_dtype: Any = ..., qkv_features: int | None = ..., out_features: int | None = ..., broadcast_dropout: bool = ..., dropout_rate: float = ..., deterministic: bool | None = ..., precision: Any = ..., kernel_init: Callable[..., Any] = ..., out_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., out_bias_init: Callable[..., Any] = ..., use_bias: bool = ..., attention_fn: Callable[..., Any] = ..., decode: bool = ..., normalize_qk: bool = ..., force_fp32_for_softmax: bool = ..., qkv_dot_general: Callable[..., Any] | None = ..., out_dot_general: Callable[..., Any] | None = ..., qkv_dot_general_cls: Any = ..., out_dot_general_cls: Any = ..., qk_attn_weights_einsum_cls: Callable[..., Any] | None = ..., attn_weights_value_einsum_cls: Callable[..., Any] | None = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.attention.SelfAttention`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs_q: Any, mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ...) -> _jax.Array: ...
    @overload
    def __call__(self, inputs_q: Any, mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[_jax.Array, dict[str, Any]]: ...
    @overload
    def __call__(self, inputs_q: Any, mask: Any = ..., deterministic: Any = ..., dropout_rng: Any = ..., sow_weights: Any = ..., *, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...

class Sequential(_FlaxModule):
    """Applies a linear chain of Modules."""
    flax_class: ClassVar[type[_linen.Sequential]]
    layers: Sequence[Callable[..., Any]]
    @property
    def module(self) -> _linen.Sequential: ...
    def __init__(self, layers: Sequence[Callable[..., Any]], *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.combinators.Sequential`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...

class SimpleCell(_FlaxModule, _hk.RNNCore):
    """Simple cell."""
    flax_class: ClassVar[type[_linen.SimpleCell]]
    features: int
    activation_fn: Callable[..., Any]
    kernel_init: Callable[..., Any]
    recurrent_kernel_init: Callable[..., Any]
    bias_init: Callable[..., Any]
    dtype: Any
    param_dtype: Any
    carry_init: Callable[..., Any]
    residual: bool
    @property
    def module(self) -> _linen.SimpleCell: ...
    def __init__(self, features: int, *, activation_fn: Callable[..., Any] = ..., kernel_init: Callable[..., Any] = ..., recurrent_kernel_init: Callable[..., Any] = ..., bias_init: Callable[..., Any] = ..., dtype: Any = ..., param_dtype: Any = ..., carry_init: Callable[..., Any] = ..., residual: bool = ..., name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.recurrent.SimpleCell`, and `name=` is the Haiku name."""
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ...) -> tuple[_jax.Array, Any]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Collection[str]) -> tuple[tuple[_jax.Array, Any], dict[str, Any]]: ...
    @overload
    def __call__(self, inputs: Any, prev_state: Any, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ...) -> Any: ...
    def initial_state(self, batch_size: int | None) -> Any: ...
    def initialize_carry(self, rng: Any, input_shape: Any) -> Any: ...
    @property
    def num_feature_axes(self) -> Any: ...

class SpectralNorm(_FlaxModule):
    """Spectral normalization."""
    flax_class: ClassVar[type[_linen.SpectralNorm]]
    layer_instance: Any
    n_steps: int
    epsilon: float
    dtype: Any
    param_dtype: Any
    error_on_non_matrix: bool
    collection_name: str
    @property
    def module(self) -> _linen.SpectralNorm: ...
    def __init__(self, layer_instance: Any, n_steps: int = ..., epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., error_on_non_matrix: bool = ..., collection_name: str = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.SpectralNorm`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, update_stats: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...

class WeightNorm(_FlaxModule):
    """L2 weight normalization (https://arxiv.org/abs/1602.07868)."""
    flax_class: ClassVar[type[_linen.WeightNorm]]
    layer_instance: Any
    epsilon: float
    dtype: Any
    param_dtype: Any
    use_scale: bool
    scale_init: Callable[..., Any]
    feature_axes: int | Sequence[int] | None
    variable_filter: Any
    @property
    def module(self) -> _linen.WeightNorm: ...
    def __init__(self, layer_instance: Any, epsilon: float = ..., dtype: Any = ..., param_dtype: Any = ..., use_scale: bool = ..., scale_init: Callable[..., Any] = ..., feature_axes: int | Sequence[int] | None = ..., variable_filter: Any = ..., *, name: str | None = ..., variables: Mapping[str, Any] | None = ..., transient: str | Collection[str] | None = ...) -> None:
        """Builds the module; the arguments are those of `flax.linen.normalization.WeightNorm`, and `name=` is the Haiku name."""
    def __call__(self, *args: Any, rngs: Any = ..., capture_intermediates: Any = ..., mutable: Any = ..., method: Any = ..., **kwargs: Any) -> Any: ...
