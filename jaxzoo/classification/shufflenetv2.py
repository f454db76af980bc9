"""ShuffleNet V2.

Ma et al. 2018, ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design,
https://arxiv.org/abs/1807.11164. Reference: torchvision.models.shufflenetv2.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxzoo.nn import (
    BatchNorm,
    Conv,
    Identity,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    Sequential,
    adaptive_avg_pool,
    channel_shuffle,
    flatten,
)
from jaxzoo.registry import imagenet, register_model


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1, *, rngs: nnx.Rngs
) -> list[nnx.Module]:
    """A convolution that keeps the size at stride 1, and batch norm."""
    padding = kernel_size // 2
    conv = Conv(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False, rngs=rngs)
    return [conv, BatchNorm(out_channels, rngs=rngs)]


class InvertedResidual(nnx.Module):
    """Half of the channels pass, or are filtered once where the map shrinks; the other half is filtered (figure 3)."""

    def __init__(self, inp: int, oup: int, stride: int, *, rngs: nnx.Rngs):
        half = oup // 2
        if stride == 1 and inp != 2 * half:
            raise ValueError(f"stride 1 keeps the number of channels even and as it is: {inp} cannot become {oup}")
        layer = partial(conv_bn, rngs=rngs)
        self.stride = stride
        self.branch1 = Sequential()
        if stride > 1:
            self.branch1 = Sequential(*layer(inp, inp, 3, stride, groups=inp), *layer(inp, half, 1), ReLU())
        self.branch2 = Sequential(
            *layer(inp if stride > 1 else half, half, 1),
            ReLU(),
            *layer(half, half, 3, stride, groups=half),
            *layer(half, half, 1),
            ReLU(),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        passing, filtered = jnp.split(x, 2, -1) if self.stride == 1 else (x, x)
        return channel_shuffle(jnp.concatenate([self.branch1(passing), self.branch2(filtered)], -1), 2)


class ShuffleNetV2(nnx.Module):
    """Images (N, H, W, in_channels) to logits (N, num_classes).

    Args:
      stages_repeats: blocks of the three stages.
      stages_out_channels: of the first convolution, the three stages and the last convolution (table 5).
      inverted_residual: builds a block, with the arguments of `InvertedResidual`.
    """

    def __init__(
        self,
        stages_repeats: Sequence[int],
        stages_out_channels: Sequence[int],
        num_classes: int = 1000,
        inverted_residual: Layer = InvertedResidual,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        channels, *widths, last = stages_out_channels
        self.conv1 = Sequential(*conv_bn(in_channels, channels, 3, 2, rngs=rngs), ReLU())
        self.maxpool = MaxPool(3, 2, 1)
        for stage, (repeats, width) in enumerate(zip(stages_repeats, widths, strict=True), start=2):
            blocks = [inverted_residual(channels, width, 2, rngs=rngs)]
            blocks += [inverted_residual(width, width, 1, rngs=rngs) for _ in range(repeats - 1)]
            setattr(self, f"stage{stage}", Sequential(*blocks))
            channels = width
        self.conv5 = Sequential(*conv_bn(channels, last, 1, rngs=rngs), ReLU())
        self.fc = Linear(last, num_classes, rngs=rngs) if num_classes else Identity()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(flatten(adaptive_avg_pool(self.conv5(x), 1)))


register_shufflenet_v2 = partial(register_model, head=("fc",), paper="Ma et al. 2018, https://arxiv.org/abs/1807.11164")


@register_shufflenet_v2(weights={"IMAGENET1K_V1": imagenet(60.552, 81.746)})
def shufflenet_v2_x0_5(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNetV2:
    return ShuffleNetV2([4, 8, 4], [24, 48, 96, 192, 1024], **kwargs, rngs=rngs)


@register_shufflenet_v2(weights={"IMAGENET1K_V1": imagenet(69.362, 88.316)})
def shufflenet_v2_x1_0(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNetV2:
    return ShuffleNetV2([4, 8, 4], [24, 116, 232, 464, 1024], **kwargs, rngs=rngs)


@register_shufflenet_v2(weights={"IMAGENET1K_V1": imagenet(72.996, 91.086, 224, 232)})
def shufflenet_v2_x1_5(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNetV2:
    return ShuffleNetV2([4, 8, 4], [24, 176, 352, 704, 1024], **kwargs, rngs=rngs)


@register_shufflenet_v2(weights={"IMAGENET1K_V1": imagenet(76.23, 93.006, 224, 232)})
def shufflenet_v2_x2_0(*, rngs: nnx.Rngs, **kwargs) -> ShuffleNetV2:
    return ShuffleNetV2([4, 8, 4], [24, 244, 488, 976, 2048], **kwargs, rngs=rngs)
