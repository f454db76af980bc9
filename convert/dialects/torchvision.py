"""Names that torchvision has given up, but that files which it still publishes bear."""

from convert.dialects import Row, Table

DENSENET = Table(  # torchvision.models.densenet._load_state_dict
    (
        Row("features.denseblock{s}.denselayer{b}.norm{n}.*", "features.denseblock{s}.denselayer{b}.norm.{n}.*"),
        Row("features.denseblock{s}.denselayer{b}.conv{n}.*", "features.denseblock{s}.denselayer{b}.conv.{n}.*"),
    ),
)

VIT = Table(  # torchvision.models.vision_transformer.MLPBlock
    (
        Row("encoder.layers.encoder_layer_{b}.mlp.0.*", "encoder.layers.encoder_layer_{b}.mlp.linear_1.*"),
        Row("encoder.layers.encoder_layer_{b}.mlp.3.*", "encoder.layers.encoder_layer_{b}.mlp.linear_2.*"),
        *(Row(name, name) for name in ("class_token", "conv_proj.*", "encoder.*", "heads.*")),
    ),
)

_CONVOLUTIONS = (  # which have been blocks of convolution and norm since
    ("backbone.fpn.inner_blocks.{i}.0", "backbone.fpn.inner_blocks.{i}"),
    ("backbone.fpn.layer_blocks.{i}.0", "backbone.fpn.layer_blocks.{i}"),
    ("rpn.head.conv.0.0", "rpn.head.conv"),
    ("roi_heads.mask_head.{i}.0", "roi_heads.mask_head.mask_fcn{i+1}"),
    ("head.classification_head.conv.{i}.0", "head.classification_head.conv.{2i}"),
    ("head.regression_head.conv.{i}.0", "head.regression_head.conv.{2i}"),
)

DETECTION = Table(  # torchvision.ops.feature_pyramid_network and models.detection: rpn, mask_rcnn, retinanet
    (
        *(Row(f"{ours}.{leaf}", f"{theirs}.{leaf}") for ours, theirs in _CONVOLUTIONS for leaf in ("weight", "bias")),
        *(Row(name, name) for name in ("backbone.*", "rpn.*", "roi_heads.*", "head.*")),
    ),
)

NAME = "torchvision"
TABLES = (DENSENET, VIT, DETECTION)
REFUSED = ()
