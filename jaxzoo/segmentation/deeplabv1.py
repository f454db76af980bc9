"""DeepLab V1, with the large field of view.

Chen et al. 2014, Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs,
https://arxiv.org/abs/1412.7062, §3 and §5 (DeepLab-LargeFOV). No package has it: the twin is written from the paper
and, where that is silent, from the network that its authors published for Caffe (DeepLab-LargeFOV, train.prototxt): 3×3
windows in all pools, whose counts round up, an average pool after pool5, and logits enlarged with aligned corners, so
that sides of 8k + 1 pixels fit without a rest. The CRF that the paper applies to its output is not part of the network.
"""

import jax
from flax import nnx

from jaxzoo.nn import Conv, Dropout, avg_pool, init, max_pool, relu, resize
from jaxzoo.registry import register_model
from jaxzoo.segmentation.vgg import VGG16Stages, from_vgg16, fully_connected, narrowed


class DeepLabV1(VGG16Stages):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`, computed at an eighth of the size.

    Args:
      rate: the dilation of fc6.
      width: a factor of all numbers of channels, for small machines.
    """

    def __init__(
        self,
        num_classes: int = 21,
        dropout: float = 0.5,
        rate: int = 12,
        width: float = 1.0,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        super().__init__(width, last_dilation=2, in_channels=in_channels, rngs=rngs)
        wide = narrowed(1024, width)
        self.fc6 = fully_connected(narrowed(512, width), wide, 3, padding=rate, dilation=rate, rngs=rngs)
        self.drop6 = Dropout(dropout, rngs=rngs)
        self.fc7 = fully_connected(wide, wide, 1, rngs=rngs)
        self.drop7 = Dropout(dropout, rngs=rngs)
        self.fc8 = Conv(wide, num_classes, 1, kernel_init=init.normal(0.01), bias_init=init.zeros, rngs=rngs)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        size = x.shape[1:-1]
        for i, stride in enumerate((2, 2, 2, 1, 1), start=1):
            x = max_pool(self.stage(i, x), 3, stride, 1, ceil_mode=True)
        x = avg_pool(x, 3, 1, 1)
        x = self.drop6(relu(self.fc6(x)))
        x = self.drop7(relu(self.fc7(x)))
        return {"out": resize(self.fc8(x), size, mode="bilinear", align_corners=True)}


@register_model(
    head=("fc8",),
    task="segmentation",
    paper="Chen et al. 2014, https://arxiv.org/abs/1412.7062",
    twin="convert.twins.deeplabv1:deeplabv1_vgg16",
    input_size=321,
    parts={"vgg16": from_vgg16()},
)
def deeplabv1_vgg16(*, rngs: nnx.Rngs, **kwargs) -> DeepLabV1:
    return DeepLabV1(**kwargs, rngs=rngs)
