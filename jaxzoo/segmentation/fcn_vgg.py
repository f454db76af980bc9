"""FCN-32s, FCN-16s and FCN-8s on VGG-16.

Long et al. 2015, Fully Convolutional Networks for Semantic Segmentation, https://arxiv.org/abs/1411.4038, §4.
Reference: torchfcn.models, a port of the authors' Caffe networks.

Where the reference leaves all convolutions at zero for other weights to fill, VGG's start as VGG's do here; scoring
layers start at zero and upsampling ones as linear interpolation, as there.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.nn import Conv, ConvTranspose, Dropout2d, init, max_pool, relu
from jaxzoo.registry import register_model
from jaxzoo.segmentation.vgg import VGG16Stages, from_vgg16, fully_connected, narrowed

score = partial(Conv, kernel_size=1, kernel_init=init.zeros, bias_init=init.zeros)


def bilinear(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32, out_sharding=None) -> jax.Array:
    """Starts a transposed convolution (size, size, classes, classes) as linear interpolation, class by class (§3.3)."""
    size, _, outs, ins = shape
    ramp = 1 - np.abs(np.arange(size) - (size - 1) / 2) / ((size + 1) // 2)
    return jnp.asarray(np.einsum("h,w,oi->hwoi", ramp, ramp, np.eye(outs, ins)), dtype)


def upscore(num_classes: int, stride: int, rngs: nnx.Rngs) -> ConvTranspose:
    """Maps of scores, `stride` times larger."""
    return ConvTranspose(num_classes, num_classes, 2 * stride, stride, bias=False, kernel_init=bilinear, rngs=rngs)


def crop(x: jax.Array, offset: int, like: jax.Array) -> jax.Array:
    """The part of (N, H, W, C) from `offset` on that lies on another map."""
    height, width = like.shape[1:-1]
    return x[:, offset : offset + height, offset : offset + width]


class FCN(VGG16Stages):
    """VGG-16 whose dense layers are convolutions, fc6 and fc7, and the scores of the last, score_fr.

    Images are padded by 100 pixels, so that any size leaves fc6 its 7×7 positions; crops take that away again.

    Args:
      dropout: the share of channels that training drops; where the reference drops whole ones, the paper drops values.
      width: a factor of all numbers of channels, for small machines.
    """

    def __init__(
        self, num_classes: int = 21, dropout: float = 0.5, width: float = 1.0, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        super().__init__(width, first_padding=100, in_channels=in_channels, rngs=rngs)
        wide = narrowed(4096, width)
        self.fc6 = fully_connected(narrowed(512, width), wide, 7, rngs=rngs)
        self.drop6 = Dropout2d(dropout, rngs=rngs)
        self.fc7 = fully_connected(wide, wide, 1, rngs=rngs)
        self.drop7 = Dropout2d(dropout, rngs=rngs)
        self.score_fr = score(wide, num_classes, rngs=rngs)

    def features(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Maps at an eighth and a sixteenth of the size, and scores at a thirty-second of it."""
        pools = []
        for i in range(1, 6):
            x = max_pool(self.stage(i, x), 2, ceil_mode=True)
            pools.append(x)
        x = self.drop6(relu(self.fc6(x)))
        x = self.drop7(relu(self.fc7(x)))
        return pools[2], pools[3], self.score_fr(x)


class FCN32s(FCN):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`: scores enlarged in one step. See `FCN`."""

    def __init__(
        self, num_classes: int = 21, dropout: float = 0.5, width: float = 1.0, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        super().__init__(num_classes, dropout, width, in_channels=in_channels, rngs=rngs)
        self.upscore = upscore(num_classes, 32, rngs)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        _, _, scores = self.features(x)
        return {"out": crop(self.upscore(scores), 19, like=x)}


class FCN16s(FCN):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`, with pool4 (§4.2). See `FCN`."""

    def __init__(
        self, num_classes: int = 21, dropout: float = 0.5, width: float = 1.0, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        super().__init__(num_classes, dropout, width, in_channels=in_channels, rngs=rngs)
        self.score_pool4 = score(narrowed(512, width), num_classes, rngs=rngs)
        self.upscore2 = upscore(num_classes, 2, rngs)
        self.upscore16 = upscore(num_classes, 16, rngs)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        _, pool4, scores = self.features(x)
        scores = self.upscore2(scores)
        scores += crop(self.score_pool4(pool4), 5, like=scores)
        return {"out": crop(self.upscore16(scores), 27, like=x)}


class FCN8s(FCN):
    """Images (N, H, W, in_channels) to `{"out": (N, H, W, num_classes)}`, with pool4 and pool3 (§4.2). See `FCN`."""

    def __init__(
        self, num_classes: int = 21, dropout: float = 0.5, width: float = 1.0, *, in_channels: int = 3, rngs: nnx.Rngs
    ):
        super().__init__(num_classes, dropout, width, in_channels=in_channels, rngs=rngs)
        self.score_pool3 = score(narrowed(256, width), num_classes, rngs=rngs)
        self.score_pool4 = score(narrowed(512, width), num_classes, rngs=rngs)
        self.upscore2 = upscore(num_classes, 2, rngs)
        self.upscore8 = upscore(num_classes, 8, rngs)
        self.upscore_pool4 = upscore(num_classes, 2, rngs)

    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        pool3, pool4, scores = self.features(x)
        scores = self.upscore2(scores)
        scores += crop(self.score_pool4(pool4), 5, like=scores)
        scores = self.upscore_pool4(scores)
        scores += crop(self.score_pool3(pool3), 9, like=scores)
        return {"out": crop(self.upscore8(scores), 31, like=x)}


VGG16 = {"vgg16": from_vgg16() | {"classifier.0.": "fc6.", "classifier.3.": "fc7."}}
SAME = {"": ""}  # every layer that both have

register_fcn = partial(
    register_model,
    task="segmentation",
    paper="Long et al. 2015, https://arxiv.org/abs/1411.4038",
    input_size=500,  # the longer side of Pascal VOC's images
)


@register_fcn(twin="convert.twins.fcn_vgg:fcn32s", head=("score_fr", "upscore"), parts=VGG16)
def fcn32s(*, rngs: nnx.Rngs, **kwargs) -> FCN32s:
    return FCN32s(**kwargs, rngs=rngs)


@register_fcn(
    twin="convert.twins.fcn_vgg:fcn16s",
    head=("score_fr", "score_pool4", "upscore2", "upscore16"),
    parts={"fcn32s": SAME} | VGG16,
)
def fcn16s(*, rngs: nnx.Rngs, **kwargs) -> FCN16s:
    return FCN16s(**kwargs, rngs=rngs)


@register_fcn(
    twin="convert.twins.fcn_vgg:fcn8s",
    head=("score_fr", "score_pool3", "score_pool4", "upscore2", "upscore8", "upscore_pool4"),
    parts={"fcn16s": SAME, "fcn32s": SAME} | VGG16,
)
def fcn8s(*, rngs: nnx.Rngs, **kwargs) -> FCN8s:
    return FCN8s(**kwargs, rngs=rngs)
