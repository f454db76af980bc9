"""timm's names of the networks that it has in common with torchvision.

What timm calls by the names of the reference itself (ResNet, DenseNet, Inception) is here so that it can be written.
"""

import numpy as np

from convert.dialects import Refusal, Row, Table


def rows(*pairs: tuple[str, str], at: tuple[str, str] = ("", "")) -> tuple[Row, ...]:
    """Rows that rename and no more, each side under a path of its own."""
    return tuple(Row(at[0] + ours, at[1] + theirs) for ours, theirs in pairs)


def same(*names: str) -> tuple[Row, ...]:
    return rows(*zip(names, names, strict=True))


def linear_as_conv(ours: str, theirs: str, size: int) -> tuple[Row, ...]:
    """A Linear of ours on a flattened (size, size) map is a convolution of theirs."""
    weight = Row(
        f"{ours}.weight",
        f"{theirs}.weight",
        lambda a: a.reshape(len(a), -1),
        lambda a: a.reshape(len(a), -1, size, size),
    )
    return (weight, Row(f"{ours}.bias", f"{theirs}.bias"))


RESNET = Table(same("conv1.*", "bn1.*", "layer{s}.{b}.*", "fc.*"), epsilon=1e-5)

DENSENET = Table(
    same(
        *("features.conv0.*", "features.norm0.*", "features.norm5.*", "classifier.weight", "classifier.bias"),
        *("features.denseblock{s}.denselayer{b}.*", "features.transition{s}.*"),
    ),
    epsilon=1e-5,
)

INCEPTION = Table(same("Conv2d_*", "Mixed_*", "AuxLogits.*", "fc.*"), epsilon=1e-3)

_LEAVES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

VGG = Table(
    same(*(f"features.{{n}}.{leaf}" for leaf in _LEAVES))
    + linear_as_conv("classifier.0", "pre_logits.fc1", 7)
    + linear_as_conv("classifier.3", "pre_logits.fc2", 1)
    + rows(("classifier.6.*", "head.fc.*")),
    epsilon=1e-5,
)

VIT = Table(
    rows(
        ("class_token", "cls_token"),
        ("encoder.pos_embedding", "pos_embed"),
        ("conv_proj.*", "patch_embed.proj.*"),
        ("encoder.ln.*", "norm.*"),
        ("heads.head.*", "head.*"),
    )
    + rows(
        ("ln_{n}.*", "norm{n}.*"),
        ("self_attention.in_proj_*", "attn.qkv.*"),
        ("self_attention.out_proj.*", "attn.proj.*"),
        ("mlp.0.*", "mlp.fc1.*"),
        ("mlp.3.*", "mlp.fc2.*"),
        at=("encoder.layers.encoder_layer_{b}.", "blocks.{b}."),
    ),
    epsilon=1e-6,
)


def swin(downsample: str, head: str) -> tuple[Row, ...]:
    """What both versions of Swin have in common; a reduction lies here with us, and the classifier there with them."""
    return rows(
        ("features.0.0.*", "patch_embed.proj.*"),
        ("features.0.2.*", "patch_embed.norm.*"),
        (f"{downsample}.norm.*", "layers.{s}.downsample.norm.*"),
        (f"{downsample}.reduction.*", "layers.{s}.downsample.reduction.*"),
        ("norm.*", "norm.*"),
        ("head.weight", f"{head}.weight"),
        ("head.bias", f"{head}.bias"),
    ) + rows(
        ("norm{n}.*", "norm{n}.*"),
        ("mlp.0.*", "mlp.fc1.*"),
        ("mlp.3.*", "mlp.fc2.*"),
        ("attn.qkv.weight", "attn.qkv.weight"),
        ("attn.proj.*", "attn.proj.*"),
        at=("features.{2s+1}.{b}.", "layers.{s}.blocks.{b}."),
    )


_ATTENTION = ("features.{2s+1}.{b}.attn.", "layers.{s}.blocks.{b}.attn.")

# Keys have no bias: where torchvision stores one, it is not used.
_QKV_BIAS = Row(
    f"{_ATTENTION[0]}qkv.bias",
    (f"{_ATTENTION[1]}q_bias", f"{_ATTENTION[1]}v_bias"),
    lambda q, v: np.concatenate([q, np.zeros_like(q), v]),
    lambda a: tuple(np.split(a, 3)[::2]),
)
_SWIN_V1 = rows(
    ("qkv.bias", "qkv.bias"), ("relative_position_bias_table", "relative_position_bias_table"), at=_ATTENTION
)
_SWIN_V2 = (_QKV_BIAS, *rows(("logit_scale", "logit_scale"), ("cpb_mlp.*", "cpb_mlp.*"), at=_ATTENTION))
_INDEX = "features.{s}.{b}.attn.relative_position_index"


def swin_tables(downsample: str, head: str) -> tuple[Table, Table]:
    """Of versions 1 and 2, see `swin`."""
    common = swin(downsample, head)
    coords = "features.{s}.{b}.attn.relative_coords_table"
    return (
        Table(common + _SWIN_V1, epsilon=1e-5, derived=(_INDEX,)),
        Table(common + _SWIN_V2, epsilon=1e-5, derived=(_INDEX, coords)),
    )


SWIN, SWIN_V2 = swin_tables("features.{2s}", "head.fc")

CONVNEXT = Table(
    rows(
        ("features.0.*", "stem.*"),
        ("features.{2s}.*", "stages.{s}.downsample.*"),
        ("classifier.0.*", "head.norm.*"),
        ("classifier.2.*", "head.fc.*"),
    )
    + rows(
        ("block.0.*", "conv_dw.*"),
        ("block.2.*", "norm.*"),
        ("block.3.*", "mlp.fc1.*"),
        ("block.5.*", "mlp.fc2.*"),
        at=("features.{2s+1}.{b}.", "stages.{s}.blocks.{b}."),
    )
    + (
        Row(
            "features.{2s+1}.{b}.layer_scale",
            "stages.{s}.blocks.{b}.gamma",
            lambda a: a.reshape(-1, 1, 1),
            lambda a: a.reshape(-1),
        ),
    ),
    epsilon=1e-6,
)

_STEM = (("features.0.0.*", "conv_stem.*"), ("features.0.1.*", "bn1.*"))

EFFICIENTNET = Table(
    rows(*_STEM, ("features.8.0.*", "conv_head.*"), ("features.8.1.*", "bn2.*"), ("classifier.1.*", "classifier.*"))
    + rows(  # the first stage does not expand
        ("0.0.*", "conv_dw.*"),
        ("0.1.*", "bn1.*"),
        ("1.fc1.*", "se.conv_reduce.*"),
        ("1.fc2.*", "se.conv_expand.*"),
        ("2.0.*", "conv_pw.*"),
        ("2.1.*", "bn2.*"),
        at=("features.1.{b}.block.", "blocks.0.{b}."),
    )
    + rows(
        ("0.0.*", "conv_pw.*"),
        ("0.1.*", "bn1.*"),
        ("1.0.*", "conv_dw.*"),
        ("1.1.*", "bn2.*"),
        ("2.fc1.*", "se.conv_reduce.*"),
        ("2.fc2.*", "se.conv_expand.*"),
        ("3.0.*", "conv_pwl.*"),
        ("3.1.*", "bn3.*"),
        at=("features.{s+1}.{b}.block.", "blocks.{s}.{b}."),
    ),
    epsilon=1e-5,
    caution="timm's tf_ networks bear the same names and compute something else: they pad as TensorFlow does",
)

REGNET = Table(
    rows(("stem.0.*", "stem.conv.*"), ("stem.1.*", "stem.bn.*"), ("fc.*", "head.fc.*"))
    + rows(
        ("proj.0.*", "downsample.conv.*"),
        ("proj.1.*", "downsample.bn.*"),
        ("f.a.0.*", "conv1.conv.*"),
        ("f.a.1.*", "conv1.bn.*"),
        ("f.b.0.*", "conv2.conv.*"),
        ("f.b.1.*", "conv2.bn.*"),
        ("f.se.*", "se.*"),
        ("f.c.0.*", "conv3.conv.*"),
        ("f.c.1.*", "conv3.bn.*"),
        at=("trunk_output.block{s}.block{s}-{b}.", "s{s}.b{b+1}."),
    ),
    epsilon=1e-5,
)

_BOTTLENECK = ("conv_pw.*", "bn1.*", "conv_dw.*", "bn2.*", "conv_pwl.*", "bn3.*")
# torchvision counts the blocks through, timm within a stage; these many have the stages after the first.
_PLACES = [(stage, block) for stage, blocks in enumerate((2, 3, 4, 3, 3, 1), 1) for block in range(blocks)]

MOBILENET_V2 = Table(
    rows(*_STEM, ("features.18.0.*", "conv_head.*"), ("features.18.1.*", "bn2.*"), ("classifier.1.*", "classifier.*"))
    + rows(
        ("0.0.*", "conv_dw.*"),
        ("0.1.*", "bn1.*"),
        ("1.*", "conv_pw.*"),
        ("2.*", "bn2.*"),
        at=("features.1.conv.", "blocks.0.0."),
    )
    + tuple(
        row
        for i, (stage, block) in enumerate(_PLACES, 2)
        for row in rows(
            *zip(("0.0.*", "0.1.*", "1.0.*", "1.1.*", "2.*", "3.*"), _BOTTLENECK, strict=True),
            at=(f"features.{i}.conv.", f"blocks.{stage}.{block}."),
        )
    ),
    epsilon=1e-5,
)

MNASNET = Table(
    rows(
        ("layers.0.*", "conv_stem.*"),
        ("layers.1.*", "bn1.*"),
        ("layers.3.*", "blocks.0.0.conv_dw.*"),
        ("layers.4.*", "blocks.0.0.bn1.*"),
        ("layers.6.*", "blocks.0.0.conv_pw.*"),
        ("layers.7.*", "blocks.0.0.bn2.*"),
        ("layers.14.*", "conv_head.*"),
        ("layers.15.*", "bn2.*"),
        ("classifier.1.*", "classifier.*"),
    )
    + rows(
        *zip(("0.*", "1.*", "3.*", "4.*", "6.*", "7.*"), _BOTTLENECK, strict=True),
        at=("layers.{s+7}.{b}.layers.", "blocks.{s}.{b}."),
    ),
    epsilon=1e-5,
)

NAME = "timm"
TABLES = (
    *(RESNET, DENSENET, INCEPTION, VGG, VIT, SWIN, SWIN_V2),
    *(CONVNEXT, EFFICIENTNET, MOBILENET_V2, MNASNET, REGNET),
)

_OTHER_EPSILON = (
    "timm's {} normalises with epsilon 1e-05, torchvision's with 0.001 "
    "(timm's tf_ networks with 0.001 too, but they pad as TensorFlow does)"
)

REFUSED = (
    Refusal(("conv_stem.weight", "conv_head.bias"), _OTHER_EPSILON.format("MobileNetV3")),
    Refusal(("conv_stem.weight", "blocks.{s}.{b}.conv_exp.weight"), _OTHER_EPSILON.format("EfficientNetV2")),
)
