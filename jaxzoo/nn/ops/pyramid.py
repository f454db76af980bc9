"""Feature pyramid networks (Lin et al. 2017, https://arxiv.org/abs/1612.03144), under torchvision.ops' names."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax
from flax import nnx

from jaxzoo.nn import init
from jaxzoo.nn.activation import relu
from jaxzoo.nn.block import ConvNormActivation, Layer
from jaxzoo.nn.conv import Conv
from jaxzoo.nn.resize import resize

# Extends the results by what it makes of them and of the backbone's maps, and their names.
ExtraBlock = Callable[[list[jax.Array], list[jax.Array], list[str]], tuple[list[jax.Array], list[str]]]


def _start(key: jax.Array, shape: tuple[int, ...], *rest) -> jax.Array:
    """torch's kaiming_uniform_(a=1)."""
    return init.uniform(math.sqrt(3 / math.prod(shape[:-1])))(key, shape, *rest)


class FeaturePyramidNetwork(nnx.Module):
    """Maps of a backbone, finest first, to as many of `out_channels`, each with what is above it added.

    `{name: (N, h, w, in_channels)}` to `{name: (N, h, w, out_channels)}` and the maps of the extra blocks.

    Args:
      in_channels_list: of each map.
      extra_blocks: `LastLevelMaxPool` or `LastLevelP6P7`, or anything that is called as they are.
      norm_layer: for batch norm after every convolution, which then has no bias.
    """

    _version = 2  # of the layout of torchvision's state_dict

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: ExtraBlock | None = None,
        norm_layer: Layer | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        def block(channels: int, kernel_size: int) -> ConvNormActivation:
            return ConvNormActivation(
                channels,
                out_channels,
                kernel_size,
                norm_layer=norm_layer,
                activation_layer=None,
                kernel_init=_start,
                bias_init=init.zeros,
                rngs=rngs,
            )

        self.inner_blocks = nnx.List([block(channels, 1) for channels in in_channels_list])
        self.layer_blocks = nnx.List([block(out_channels, 3) for _ in in_channels_list])
        self.extra_blocks = extra_blocks

    def __call__(self, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        names, maps = list(x), list(x.values())
        if len(maps) != len(self.inner_blocks):
            raise ValueError(f"a pyramid of {len(self.inner_blocks)} levels was given {', '.join(names)}")
        inner, above, results = [b(m) for b, m in zip(self.inner_blocks, maps, strict=True)], None, []
        for lateral, layer in zip(reversed(inner), reversed(list(self.layer_blocks)), strict=True):
            above = lateral if above is None else lateral + resize(above, lateral.shape[1:3])
            results.insert(0, layer(above))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return dict(zip(names, results, strict=True))


class LastLevelMaxPool(nnx.Module):
    """One more level, "pool": every other pixel of the last."""

    def __call__(self, p: list[jax.Array], c: list[jax.Array], names: list[str]) -> tuple[list[jax.Array], list[str]]:
        return [*p, p[-1][:, ::2, ::2]], [*names, "pool"]


class LastLevelP6P7(nnx.Module):
    """RetinaNet's two more levels, by strided convolutions; of the last result, or of C5 where its channels differ."""

    def __init__(self, in_channels: int, out_channels: int, *, rngs: nnx.Rngs):
        self.p6, self.p7 = (
            Conv(channels, out_channels, 3, 2, 1, kernel_init=_start, bias_init=init.zeros, rngs=rngs)
            for channels in (in_channels, out_channels)
        )
        self.use_P5 = in_channels == out_channels

    def __call__(self, p: list[jax.Array], c: list[jax.Array], names: list[str]) -> tuple[list[jax.Array], list[str]]:
        p6 = self.p6(p[-1] if self.use_P5 else c[-1])
        return [*p, p6, self.p7(relu(p6))], [*names, "p6", "p7"]
