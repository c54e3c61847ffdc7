"""ResNets and MobileNet: Haiku's own, and Flax modules, which may have a mistake."""

import functools

import flax.linen as nn
import haiku as hk
import jax

from .pairs import Pair
from .pairs import Planted

WRONG_GROUP = 1  # the group of blocks with the mistake


class Norm(nn.Module):
    """BatchNorm as Haiku has it in these networks."""

    wrong: str = ""
    decay: float = 0.9

    @nn.compact
    def __call__(self, x, train):
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.95 if self.wrong == "momentum" else self.decay,
            epsilon=1e-6 if self.wrong == "epsilon" else 1e-5,
            axis_name=None,
            use_bias=self.wrong != "missing bias",
        )(x)


class Block(nn.Module):
    channels: int
    stride: int
    project: bool
    bottleneck: bool
    wrong: str = ""

    @nn.compact
    def __call__(self, x, train):
        wrong = self.wrong
        conv = functools.partial(nn.Conv, use_bias=False)
        shortcut = x
        if self.project:
            size = (self.stride, self.stride)
            shortcut = conv(self.channels, (1, 1), size, name="shortcut")(x)
            if wrong != "missing norm":
                shortcut = Norm(name="shortcut_norm")(shortcut, train)
        inner = self.channels // (4 if self.bottleneck else 1)
        pad = ((0, 2), (2, 0)) if wrong == "padding" else "SAME"
        forms = [(inner, 3, self.stride), (inner, 3, 1)]
        if self.bottleneck:
            forms = [(inner, 1, 1), (inner, 3, self.stride), (self.channels, 1, 1)]
            if wrong == "strides":
                forms = [(inner, 1, self.stride), (inner, 3, 1), (self.channels, 1, 1)]
        elif wrong == "strides":
            forms = [(inner, 3, 1), (inner, 3, self.stride)]
        for i, (features, size, stride) in enumerate(forms):
            x = conv(
                features,
                (size, size),
                (stride, stride),
                padding=pad if size == 3 else "SAME",
                kernel_dilation=2 if wrong == "dilation" and size == 3 else 1,
                use_bias=wrong == "extra bias" and i == 1,
                name=f"conv_{i}",
            )(x)
            x = Norm(wrong if i == 1 else "", name=f"norm_{i}")(x, train)
            if i < len(forms) - 1:
                x = nn.gelu(x) if wrong == "activation" else nn.relu(x)
        return x + shortcut if wrong == "order" else nn.relu(x + shortcut)


class ResNet(nn.Module):
    blocks: tuple
    channels: tuple
    bottleneck: bool
    wrong: str = ""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(64, (7, 7), (2, 2), use_bias=False, name="stem")(x)
        x = nn.relu(Norm(name="stem_norm")(x, train))
        pool = nn.avg_pool if self.wrong == "pool" else nn.max_pool
        x = pool(x, (3, 3), (2, 2), padding="SAME")
        for i, count in enumerate(self.blocks):
            for j in range(count):
                wrong = self.wrong if (i, j) == (WRONG_GROUP, 0) else ""
                stride = 2 if i and not j else 1
                project = j == 0
                made = Block(
                    self.channels[i], stride, project, self.bottleneck, wrong,
                    name=f"group_{i}_block_{j}",
                )  # fmt: skip
                x = made(x, train)
        x = x.max(axis=(1, 2)) if self.wrong == "reduction" else x.mean(axis=(1, 2))
        return nn.Dense(10, name="logits")(x)


def resnet(name, blocks, channels, bottleneck, size):
    def haiku(wrong):
        def forward(x, is_training=False):
            project = (True, True, True, True)
            return hk.nets.ResNet(
                blocks, 10, bottleneck=bottleneck, channels_per_group=channels,
                use_projection=project,
            )(x, is_training)  # fmt: skip

        return forward

    here = f"block_group_{WRONG_GROUP}/block_0|group_{WRONG_GROUP}_block_0"
    inner = lambda one, two: f"({here})/({one}|{two})"
    norm = inner("batchnorm_1(/(mean|var)_ema)?", "norm_1/BatchNorm_0")
    last = inner("conv_[01]", "conv_[01]")
    mistakes = {
        "epsilon": Planted(norm, "epsilon: 1e-05 in Haiku, 1e-06 in Flax"),
        "padding": Planted(last, "padding"),
        "strides": Planted(last, "strides"),
        "dilation": Planted(last, "dilation"),
        "extra bias": Planted(inner("conv_1", "conv_1"), "a missing bias"),
        "missing bias": Planted(norm, "an extra bias"),
        "missing norm": Planted(
            inner("shortcut_batchnorm", "shortcut_norm/BatchNorm_0"),
            "an extra (layer|norm)",
        ),
        "activation": Planted(here, "activation: max in Haiku, (erf|tanh)"),
        "order": Planted(here, "activation: max in Haiku, none in Flax"),
        "pool": Planted("res_net|ResNet", "pooling, or a reduction"),
        "reduction": Planted("res_net|ResNet", "pooling, or a reduction"),
        "momentum": Planted(norm, "a constant .a scale, or a momentum.: (0.9|0.1) in "),
    }
    x = jax.random.normal(jax.random.key(3), (2, size, size, 3))
    return Pair(
        name,
        lambda wrong: ResNet(blocks, channels, bottleneck, wrong),
        haiku,
        (x,),
        mistakes,
        {"train": False},
        trained=("momentum",),
    )


class MobileBlock(nn.Module):
    channels: int
    stride: int
    wrong: str = ""

    @nn.compact
    def __call__(self, x, train):
        wrong, features = self.wrong, x.shape[-1]
        norm = functools.partial(Norm, decay=0.999)
        pad = "SAME" if wrong == "padding" else ((1, 1), (1, 1))
        x = nn.Conv(
            features,
            (3, 3),
            (1, 1) if wrong == "strides" else (self.stride, self.stride),
            padding=((2, 2), (2, 2)) if wrong == "dilation" else pad,
            kernel_dilation=2 if wrong == "dilation" else 1,
            feature_group_count=features,
            use_bias=wrong == "extra bias",
            name="depthwise",
        )(x)
        x = norm(wrong, name="norm_0")(x, train) if wrong != "missing norm" else x
        x = (
            nn.gelu(x)
            if wrong == "activation"
            else x
            if wrong == "order"
            else nn.relu(x)
        )
        x = nn.Conv(self.channels, (1, 1), use_bias=False, name="pointwise")(x)
        return nn.relu(norm(name="norm_1")(x, train))


class MobileNet(nn.Module):
    strides: tuple
    channels: tuple
    wrong: str = ""

    @nn.compact
    def __call__(self, x, train):
        pad = "SAME" if self.wrong == "stem padding" else "VALID"
        x = nn.Conv(32, (3, 3), (2, 2), padding=pad, use_bias=False, name="stem")(x)
        x = nn.relu(Norm(decay=0.999, name="stem_norm")(x, train))
        for i, (stride, size) in enumerate(
            zip(self.strides, self.channels, strict=True)
        ):
            wrong = self.wrong if i == 1 else ""
            x = MobileBlock(size, stride, wrong, name=f"block_{i}")(x, train)
        x = x.max(axis=(1, 2)) if self.wrong == "reduction" else x.mean(axis=(1, 2))
        return nn.Dense(10, name="logits")(x)


def mobilenet(strides, channels, size):
    def haiku(wrong):
        return lambda x, is_training=False: hk.nets.MobileNetV1(strides, channels, 10)(
            x, is_training
        )

    here = "mobile_net_v1_block_1|block_1"
    depth = f"({here})/(depthwise_conv|depthwise)"
    norm = f"({here})/(batch_norm(/(mean|var)_ema)?|norm_0/BatchNorm_0)"
    mistakes = {
        "epsilon": Planted(norm, "epsilon: 1e-05 in Haiku, 1e-06 in Flax"),
        "padding": Planted(depth, "padding"),
        "strides": Planted(depth, "strides"),
        "dilation": Planted(depth, "dilation"),
        "stem padding": Planted("initial_conv|conv2_d|stem", "padding"),
        "extra bias": Planted(depth, "a missing bias"),
        "missing bias": Planted(norm, "an extra bias"),
        "missing norm": Planted(norm, "an extra (layer|norm)"),
        "activation": Planted(here, "activation: max in Haiku, (erf|tanh)"),
        "order": Planted(here, "activation: max in Haiku, none in Flax"),
        "reduction": Planted("mobile_net_v1|MobileNet", "pooling, or a reduction"),
        "momentum": Planted(
            norm, "a constant .a scale, or a momentum.: (0.999|0.00099999) in "
        ),
    }
    x = jax.random.normal(jax.random.key(4), (2, size, size, 3))
    return Pair(
        "MobileNetV1",
        lambda wrong: MobileNet(strides, channels, wrong),
        haiku,
        (x,),
        mistakes,
        {"train": False},
        trained=("momentum",),
    )
