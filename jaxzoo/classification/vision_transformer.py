"""Vision Transformer.

Dosovitskiy et al. 2020, An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale,
https://arxiv.org/abs/2010.11929. Reference: torchvision.models.vision_transformer.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.nn import (
    GELU,
    MLP,
    BatchNorm,
    Conv,
    ConvNormActivation,
    Dropout,
    Identity,
    Layer,
    LayerNorm,
    Linear,
    MultiHeadAttention,
    NamedSequential,
    ReLU,
    Tanh,
    init,
)
from jaxzoo.nn.resize import resized_array
from jaxzoo.registry import imagenet, register_model

layer_norm = partial(LayerNorm, eps=1e-6)


class ConvStemConfig(NamedTuple):
    """One convolution of a stem that replaces the patches (Xiao et al. 2021, https://arxiv.org/abs/2106.14881)."""

    out_channels: int
    kernel_size: int
    stride: int
    norm_layer: Layer = BatchNorm
    activation_layer: Layer = ReLU


class EncoderBlock(nnx.Module):
    """Self-attention and MLP, each after a norm and with a shortcut (figure 1): (N, L, C) to the same."""

    def __init__(
        self,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        self.ln_1 = norm_layer(hidden_dim, rngs=rngs)
        self.self_attention = MultiHeadAttention(hidden_dim, num_heads, attention_dropout, rngs=rngs)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.ln_2 = norm_layer(hidden_dim, rngs=rngs)
        self.mlp = MLP(
            hidden_dim,
            [mlp_dim, hidden_dim],
            GELU,
            dropout,
            kernel_init=init.xavier_uniform,
            bias_init=init.normal(1e-6),
            rngs=rngs,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.dropout(self.self_attention(self.ln_1(x)))
        return x + self.mlp(self.ln_2(x))


def interpolate_embeddings(
    image_size: int,
    patch_size: int,
    model_state: Mapping[str, np.ndarray],
    interpolation_mode: str = "bicubic",
    reset_heads: bool = False,
) -> dict[str, np.ndarray]:
    """A state_dict for images of another size, of whose tokens it places the table of positions anew.

    `convert.load` does this for `image_size=`. Reference: torchvision.models.vision_transformer.interpolate_embeddings.

    Args:
      image_size: height and width of the new images, in pixels.
      patch_size: height and width of a token, in pixels.
      model_state: NumPy arrays by torch's names, as `convert.read` gives them.
      interpolation_mode: "bicubic" or "bilinear"; the corners of both grids coincide.
      reset_heads: whether to leave out the classifier where the table changes, as the reference does.

    Raises:
      UsageError: the file's tokens are no square grid.
    """
    name = "encoder.pos_embedding"
    table, length = np.asarray(model_state[name]), (image_size // patch_size) ** 2 + 1
    if table.shape[1] == length:
        return dict(model_state)
    state = {key: a for key, a in model_state.items() if not (reset_heads and key.startswith("heads"))}
    return state | {name: _resample_positions(table, (1, length, table.shape[2]), interpolation_mode)}


def _resample_positions(table: np.ndarray, shape: Sequence[int], mode: str = "bicubic") -> np.ndarray:
    """(1, 1 + h·h, C) to the `shape` (1, 1 + H·H, C): a class token, which stays, and a square grid."""
    old, new = (math.isqrt(length - 1) for length in (table.shape[1], shape[1]))
    if table.shape[0] != 1 or old**2 + 1 != table.shape[1]:
        raise UsageError(f"positions of shape {table.shape} are no class token and a square grid of tokens")
    grid = resized_array(table[:, 1:].reshape(1, old, old, -1), (new, new), mode, align_corners=True)
    return np.concatenate([table[:, :1], grid.reshape(1, new**2, -1)], 1)


class Encoder(nnx.Module):
    """Adds the position embedding and runs the blocks: (N, L, C) to the same."""

    resampled = {"pos_embedding": _resample_positions}  # how weights for images of another size are read

    def __init__(
        self,
        seq_length: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        mlp_dim: int,
        dropout: float,
        attention_dropout: float,
        norm_layer: Layer,
        *,
        rngs: nnx.Rngs,
    ):
        embedding = init.normal(0.02)(rngs.params(), (1, seq_length, hidden_dim), jnp.float32)
        self.pos_embedding = nnx.Param(embedding)
        self.dropout = Dropout(dropout, rngs=rngs)
        self.layers = NamedSequential(
            **{
                f"encoder_layer_{i}": EncoderBlock(
                    num_heads, hidden_dim, mlp_dim, dropout, attention_dropout, norm_layer, rngs=rngs
                )
                for i in range(num_layers)
            }
        )
        self.ln = norm_layer(hidden_dim, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.ln(self.layers(self.dropout(x + self.pos_embedding[...])))


class VisionTransformer(nnx.Module):
    """Images (N, image_size, image_size, in_channels) to logits (N, num_classes); sizes are ViT-B/16's unless given.

    Args:
      image_size: height and width of the images in pixels, a multiple of
      patch_size: height and width of a token in pixels.
      representation_size: width of a hidden layer in the head, which has none unless given.
      conv_stem_configs: convolutions in place of the patches; their strides must multiply to `patch_size`.

    Raises:
      UsageError: `patch_size` does not divide `image_size`, or an image has another size than `image_size`.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        num_layers: int = 12,
        num_heads: int = 12,
        hidden_dim: int = 768,
        mlp_dim: int = 3072,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_classes: int = 1000,
        representation_size: int | None = None,
        norm_layer: Layer = layer_norm,
        conv_stem_configs: Sequence[ConvStemConfig] | None = None,
        *,
        in_channels: int = 3,
        rngs: nnx.Rngs,
    ):
        if image_size % patch_size:
            raise UsageError(f"image_size is {image_size}; it must be a multiple of the patch size, {patch_size}")
        self.image_size, self.patch_size = image_size, patch_size
        if conv_stem_configs is None:
            self.conv_proj = Conv(
                in_channels,
                hidden_dim,
                patch_size,
                patch_size,
                kernel_init=init.normal(math.sqrt(1 / (in_channels * patch_size**2))),
                bias_init=init.zeros,
                rngs=rngs,
            )
        else:
            self.conv_proj = _conv_stem(conv_stem_configs, in_channels, hidden_dim, rngs)
        self.class_token = nnx.Param(jnp.zeros((1, 1, hidden_dim), jnp.float32))
        self.encoder = Encoder(
            (image_size // patch_size) ** 2 + 1,
            num_layers,
            num_heads,
            hidden_dim,
            mlp_dim,
            dropout,
            attention_dropout,
            norm_layer,
            rngs=rngs,
        )

        def head(in_features: int) -> nnx.Module:
            zero = {"kernel_init": init.zeros, "bias_init": init.zeros}
            return Linear(in_features, num_classes, **zero, rngs=rngs) if num_classes else Identity()

        if representation_size is None:
            self.heads = NamedSequential(head=head(hidden_dim))
        else:
            small = init.normal(math.sqrt(1 / hidden_dim))
            pre_logits = Linear(hidden_dim, representation_size, kernel_init=small, bias_init=init.zeros, rngs=rngs)
            self.heads = NamedSequential(pre_logits=pre_logits, act=Tanh(), head=head(representation_size))

    def __call__(self, x: jax.Array) -> jax.Array:
        n, height, width, _ = x.shape
        if (height, width) != (self.image_size, self.image_size):
            raise UsageError(
                f"this VisionTransformer takes images of {self.image_size}×{self.image_size} pixels, not "
                f"{height}×{width}; resize them, or build the model with another image_size"
            )
        x = self.conv_proj(x)
        x = x.reshape(n, -1, x.shape[-1])  # (N, L, C)
        token = jnp.broadcast_to(self.class_token[...], (n, 1, x.shape[-1]))
        x = self.encoder(jnp.concatenate([token, x], 1))
        return self.heads(x[:, 0])


def _conv_stem(configs: Sequence[ConvStemConfig], channels: int, hidden_dim: int, rngs: nnx.Rngs) -> NamedSequential:
    layers = {}
    for i, c in enumerate(configs):
        layers[f"conv_bn_relu_{i}"] = ConvNormActivation(
            channels,
            c.out_channels,
            c.kernel_size,
            c.stride,
            norm_layer=c.norm_layer,
            activation_layer=c.activation_layer,
            rngs=rngs,
        )
        channels = c.out_channels
    kernel_init = init.normal(math.sqrt(2 / hidden_dim))
    last = Conv(channels, hidden_dim, 1, kernel_init=kernel_init, bias_init=init.zeros, rngs=rngs)
    return NamedSequential(**layers, conv_last=last)


register_vit = partial(
    register_model,
    head=("heads.head",),
    tables=("timm.VIT", "torchvision.VIT"),
    paper="Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929",
)

LARGE = {"num_layers": 24, "num_heads": 16, "hidden_dim": 1024, "mlp_dim": 4096}
HUGE = {"patch_size": 14, "num_layers": 32, "num_heads": 16, "hidden_dim": 1280, "mlp_dim": 5120}


# SWAG: weights of Singh et al. 2022, https://arxiv.org/abs/2201.08371; those trained end to end take larger images.
@register_vit(
    timm="vit_base_patch16_224",
    weights={
        "IMAGENET1K_V1": imagenet(81.072, 95.318),
        "IMAGENET1K_SWAG_E2E_V1": imagenet(85.304, 97.65, 384, 384, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(81.886, 96.18, 224, 224, "bicubic"),
    },
)
def vit_b_16(*, rngs: nnx.Rngs, **kwargs) -> VisionTransformer:
    return VisionTransformer(**kwargs, rngs=rngs)


@register_vit(timm="vit_base_patch32_224", weights={"IMAGENET1K_V1": imagenet(75.912, 92.466)})
def vit_b_32(*, rngs: nnx.Rngs, **kwargs) -> VisionTransformer:
    return VisionTransformer(**{"patch_size": 32} | kwargs, rngs=rngs)


@register_vit(
    timm="vit_large_patch16_224",
    weights={
        "IMAGENET1K_V1": imagenet(79.662, 94.638, 224, 242),
        "IMAGENET1K_SWAG_E2E_V1": imagenet(88.064, 98.512, 512, 512, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(85.146, 97.422, 224, 224, "bicubic"),
    },
)
def vit_l_16(*, rngs: nnx.Rngs, **kwargs) -> VisionTransformer:
    return VisionTransformer(**LARGE | kwargs, rngs=rngs)


@register_vit(timm="vit_large_patch32_224", weights={"IMAGENET1K_V1": imagenet(76.972, 93.07)})
def vit_l_32(*, rngs: nnx.Rngs, **kwargs) -> VisionTransformer:
    return VisionTransformer(**{"patch_size": 32} | LARGE | kwargs, rngs=rngs)


@register_vit(
    timm="vit_huge_patch14_224",
    weights={
        "IMAGENET1K_SWAG_E2E_V1": imagenet(88.552, 98.694, 518, 518, "bicubic"),
        "IMAGENET1K_SWAG_LINEAR_V1": imagenet(85.708, 97.73, 224, 224, "bicubic"),
    },
)
def vit_h_14(*, rngs: nnx.Rngs, **kwargs) -> VisionTransformer:
    return VisionTransformer(**HUGE | kwargs, rngs=rngs)
