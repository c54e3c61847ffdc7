"""What Haiku's layers and their arguments are called in Flax."""

from collections.abc import Collection

# Haiku's argument: Flax's, of which a class has one.
_ARGUMENTS = {
    "output_size": ("features", "out_features"),
    "output_channels": ("features", "out_features"),
    "hidden_size": ("features", "hidden_features"),
    "with_bias": ("use_bias",),
    "w_init": ("kernel_init", "embedding_init"),
    "b_init": ("bias_init",),
    "w_i_init": ("kernel_init",),
    "w_h_init": ("recurrent_kernel_init",),
    "offset_init": ("bias_init",),
    "kernel_shape": ("kernel_size",),
    "stride": ("strides",),
    "rate": ("kernel_dilation",),
    "create_scale": ("use_scale",),
    "create_offset": ("use_bias",),
    "eps": ("epsilon",),
    "decay_rate": ("momentum",),
    "axis": ("reduction_axes",),
    "param_axis": ("feature_axes",),
    "groups": ("num_groups",),
    "cross_replica_axis": ("axis_name",),
    "cross_replica_axis_index_groups": ("axis_index_groups",),
    "vocab_size": ("num_embeddings",),
    "embed_dim": ("features",),
    "model_size": ("out_features",),
    "core": ("cell",),
    # Of calls.
    "inputs": ("x", "inputs_q"),
    "ids": ("inputs",),
    "query": ("inputs_q",),
    "key": ("inputs_k",),
    "value": ("inputs_v",),
}

# Haiku's argument: one of Flax that the class has, and the line to write.
_LINES = {
    "is_training": ("use_running_average", "use_running_average=not is_training"),
    "test_local_stats": (
        "use_running_average",
        "use_running_average=not (is_training or test_local_stats)",
    ),
    "key_size": ("qkv_features", "qkv_features=num_heads * key_size"),
    "value_size": ("qkv_features", "qkv_features=..., which is for values, too"),
    "w_init_scale": (
        "kernel_init",
        "kernel_init=hk.initializers.VarianceScaling(w_init_scale)",
    ),
    "embedding_matrix": (
        "num_embeddings",
        'variables={"params": {"embedding": embedding_matrix}}',
    ),
    "channel_multiplier": (
        "feature_group_count",
        "feature_group_count=C, features=C * channel_multiplier, for C channels",
    ),
}

# What has no counterpart, a field by which the class is known, and what to do.
_NONE = {
    "data_format": ("", "channels are the last axis: leave it out, or transpose"),
    "num_spatial_dims": ("kernel_size", "kernel_size has a number for each: (3, 3)"),
    "input_shape": ("kernel_size", "the shape comes from the input: leave it out"),
    "output_shape": ("kernel_size", "it follows from strides and padding"),
    "lookup_style": ("num_embeddings", "leave it out"),
    "double_bias": ("recurrent_kernel_init", "leave it out"),
    "offset": ("", "it is the parameter 'bias': leave it out"),
    "scale": ("", "it is a parameter: leave it out"),
    "precision": ("", "it is an argument of the constructor"),
}

# Flax's names for all of these.
ALL = frozenset(
    [name for names in _ARGUMENTS.values() for name in names]
    + [name for name, _ in [*_LINES.values(), *_NONE.values()] if name]
)

LAYERS = {
    "Linear": "Dense",
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D", "ConvND"), "Conv"),
    **{f"Conv{n}DTranspose": "ConvTranspose" for n in "123N"},
    **{f"Conv{n}DLSTM": "ConvLSTMCell" for n in "123"},
    **{f"DepthwiseConv{n}D": "Conv" for n in "123"},
    "LSTM": "LSTMCell",
    "GRU": "GRUCell",
    "VanillaRNN": "SimpleCell",
}


def of_argument(haiku: str, known: Collection[str]) -> str | None:
    """Flax's name of an argument of Haiku, if it is one of those `known`.

    >>> of_argument("with_bias", ["features", "use_bias"]), of_argument("eps", [])
    ('use_bias', None)
    """
    return next((name for name in _ARGUMENTS.get(haiku, ()) if name in known), None)


def line(haiku: str, value: str, known: Collection[str]) -> str | None:
    """What to write for an argument of Haiku, or None if nothing is known.

    >>> line("with_bias", "False", ["use_bias"])
    'write use_bias=False'
    >>> line("data_format", "'NCHW'", [])
    'there is none; channels are the last axis: leave it out, or transpose'
    """
    name = of_argument(haiku, known)
    if name is not None:
        return f"write {name}={value}"
    flax, text = _LINES.get(haiku, ("", ""))
    if flax in known:
        return f"write {text}"
    flax, text = _NONE.get(haiku, ("", ""))
    return f"there is none; {text}" if text and (not flax or flax in known) else None
