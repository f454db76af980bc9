"""Earlier names of kazuto1011/deeplab-pytorch, under which DeepLab V2 was first published for PyTorch.

Its present ones, which begin with `base.`, are the reference's. Files of the network for one scale have no prefix.
"""

from convert.dialects import Row, Table

V2 = Table(
    tuple(
        Row(f"base.{ours}", f"{prefix}{theirs}")
        for prefix in ("scale.", "")
        for ours, theirs in (
            ("layer1.conv1.*", "layer1.conv1.*"),
            ("layer{s}.block{b}.shortcut.*", "layer{s}.block{b}.proj.*"),
            ("layer{s}.block{b}.*", "layer{s}.block{b}.*"),
            ("aspp.*", "aspp.stages.*"),
            ("aspp.*", "aspp.*"),
        )
    ),
    epsilon=1e-5,
)

NAME = "deeplab-pytorch"
TABLES = (V2,)
REFUSED = ()
