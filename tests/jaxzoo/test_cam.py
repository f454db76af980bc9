"""Class activation maps equal those of the package grad-cam, before and after it resizes and scales them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchvision
from flax import nnx
from jax.tree_util import Partial
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, SemanticSegmentationTarget

import convert
import jaxzoo
from jaxzoo import nn
from jaxzoo.classification import convnext, mobilenetv3, resnet, swin_transformer, vgg, vision_transformer
from jaxzoo.inspect import attention_rollout, box_score, cam, cam_layer, heatmap, pixel_score
from jaxzoo.inspect.cam import METHODS, activations_and_gradients, class_score
from tests.compare import arrays, cast, close, normal, to_last

THEIRS = {
    "grad-cam": pytorch_grad_cam.GradCAM,
    "grad-cam++": pytorch_grad_cam.GradCAMPlusPlus,
    "layer-cam": pytorch_grad_cam.LayerCAM,
    "eigen-cam": pytorch_grad_cam.EigenCAM,
}
LABELS = [3, 1]
SIZE = 64
VIT = {"image_size": SIZE, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
SWIN = {"patch_size": [4, 4], "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": [4, 4]}
STAGES = ((8, 16, 1), (16, None, 2))


# Ours, torchvision's, its layer and what makes a map of tokens, as grad-cam's documentation chooses them.
Pair = tuple[Callable[..., nnx.Module], Callable[[], torch.nn.Module], Callable, Callable | None, str]
PAIRS: dict[str, Pair] = {
    "resnet": (
        partial(resnet.resnet18, num_classes=5),
        lambda: torchvision.models.resnet18(num_classes=5),
        lambda m: m.layer4[-1],
        None,
        "layer4",
    ),
    "vgg": (
        lambda rngs: nn.Sequential(
            vgg.make_layers((8, "M", 12, 12, "M"), rngs=rngs), nn.Flatten(), nn.Linear(12 * 16 * 16, 5, rngs=rngs)
        ),
        lambda: torch.nn.Sequential(
            torchvision.models.vgg.make_layers([8, "M", 12, 12, "M"]),
            torch.nn.Flatten(),
            torch.nn.Linear(12 * 16 * 16, 5),
        ),
        lambda m: m[0][-1],
        None,
        "0",
    ),
    "mobilenetv3": (
        partial(mobilenetv3.mobilenet_v3_small, num_classes=5),
        lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
        lambda m: m.features[-1],
        None,
        "features",
    ),
    "convnext": (
        lambda rngs: convnext.ConvNeXt([convnext.CNBlockConfig(*s) for s in STAGES], num_classes=5, rngs=rngs),
        lambda: torchvision.models.ConvNeXt(
            [torchvision.models.convnext.CNBlockConfig(*s) for s in STAGES], num_classes=5
        ),
        lambda m: m.features[-1],
        None,
        "features",
    ),
    "vit": (
        lambda rngs: vision_transformer.VisionTransformer(**VIT, num_classes=5, rngs=rngs),
        lambda: torchvision.models.VisionTransformer(**VIT, num_classes=5),
        lambda m: m.encoder.layers[-1].ln_1,
        lambda x: x[:, 1:].reshape(len(x), 4, 4, -1).permute(0, 3, 1, 2),
        "encoder.layers.encoder_layer_1.ln_1",
    ),
    "swin": (
        lambda rngs: swin_transformer.SwinTransformer(**SWIN, num_classes=5, rngs=rngs),
        lambda: torchvision.models.SwinTransformer(**SWIN, num_classes=5),
        lambda m: m.features[-1][-1].norm1,
        lambda x: x.permute(0, 3, 1, 2),
        "features.3.1.norm1",
    ),
}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request) -> tuple[nnx.Module, torch.nn.Module, torch.nn.Module, Callable | None, str]:
    """Twins in float64 with the same random weights, where no layer is scaled away."""
    build, theirs, layer, reshape, path = PAIRS[request.param]
    torch.manual_seed(0)
    twin = theirs().double().eval()
    with torch.no_grad():
        for name, tensor in twin.state_dict().items():
            if name.endswith(("layer_scale", "head.weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
        if request.param == "vit":
            twin.heads.head.weight.normal_()
    ours = cast(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))), jnp.float64)
    convert.load_state_dict(ours, arrays(twin))
    ours.eval()
    return ours, twin, layer(twin), reshape, path


def theirs(
    method: str, twin: torch.nn.Module, layer: torch.nn.Module, reshape: Callable | None, x: np.ndarray, targets: list
) -> tuple[np.ndarray, np.ndarray]:
    """What grad-cam's method makes of images (N, C, H, W): its map, and that map resized and scaled."""
    raw = []

    class Recorded(THEIRS[method]):
        def get_cam_image(self, *args):
            raw.append(super().get_cam_image(*args))
            return raw[-1]

    with Recorded(twin, [layer], reshape) as method:
        shown = method(torch.tensor(x), targets)
    return raw[0], shown


@pytest.mark.parametrize("method", THEIRS)
def test_maps_equal_grad_cams(pair, method):
    ours, twin, layer, reshape, path = pair
    x = normal(2, 3, SIZE, SIZE)
    images = jnp.asarray(to_last(x))
    expected, shown = theirs(method, twin, layer, reshape, x, [ClassifierOutputTarget(label) for label in LABELS])
    signed, score = METHODS[method], Partial(class_score, label=jnp.asarray(LABELS))
    run = jax.jit(lambda model, images: signed(*activations_and_gradients(model, images, path, score)[:2]))
    bound, kept = 1e-9, slice(None)
    if method == "eigen-cam":  # is in float32 there, and has an arbitrary sign
        flipped = np.abs(expected.min((1, 2))) > expected.max((1, 2))
        expected, bound, kept = np.where(flipped[:, None, None], -expected, expected), 1e-6, ~flipped
    close(run(ours, images), expected, bound=bound)
    found = cam(ours, images, LABELS, method=method)
    close(found, np.maximum(expected, 0), bound=bound)
    close(np.asarray(heatmap(found, (SIZE, SIZE)))[kept], shown[kept], bound=2e-6)  # which is float32


def test_the_layer_is_the_one_that_grad_cam_recommends(pair):
    ours, *_, path = pair
    assert cam_layer(ours, jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float64)) == path
