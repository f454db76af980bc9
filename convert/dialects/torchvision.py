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

NAME = "torchvision"
TABLES = (DENSENET, VIT)
REFUSED = ()
