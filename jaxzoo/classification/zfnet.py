"""ZFNet: AlexNet of 2012 on one GPU, with smaller filters and strides in the first two layers.

Zeiler and Fergus 2013, Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, §4.1.
Reference: pytorchcv.models.zfnet.
"""

from flax import nnx

from jaxzoo.classification.alexnet_2012 import AlexNet
from jaxzoo.registry import imagenet, register_model

# Figure 3, as in `alexnet_2012.STAGES`.
STAGES = (
    ((96, 7, 2, 1),),
    ((256, 5, 2, 0),),
    ((384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)),
)


@register_model(
    head=("output.fc3",),
    paper="Zeiler and Fergus 2013, https://arxiv.org/abs/1311.2901",
    twin="pytorchcv:zfnet",
    weights={"in1k": imagenet(60.21, 82.73)},
)
def zfnet(*, rngs: nnx.Rngs, **kwargs) -> AlexNet:
    return AlexNet(STAGES, 1, **kwargs, rngs=rngs)
