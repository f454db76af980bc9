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
from tests.compare import arrays, cast, close, normal, quickly, to_last
from tests.parity.detectors import DetectorPair
from tests.parity.ladder import as_torch

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


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *[
            ("squeezenet1_1", "features"),
            ("mnasnet0_5", "layers"),
            ("maxvit_t", "blocks"),
            ("mobilevit_xxs", "final_conv"),
        ],
        *[("lraspp_mobilenet_v3_large", "backbone.16"), ("fcn8s", "fc7"), ("unet_resnet18", "encoder.layer4")],
        *[("deeplabv2_resnet101", "base.layer5"), ("retinanet_resnet50_fpn", "backbone.body.layer4")],
    ],
)
def test_the_layer_of_other_models_is_the_last_map_before_the_head(name, path):
    assert cam_layer(nnx.eval_shape(lambda: jaxzoo.create_model(name)), jaxzoo.card(name).example_inputs()) == path


def randomised(name: str, **arguments) -> tuple[nnx.Module, torch.nn.Module]:
    """A small model of the zoo and torchvision's with the same weights in float64."""
    torch.manual_seed(0)
    twin = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, **arguments)
    twin = twin.double().eval()
    ours = cast(nnx.eval_shape(lambda: jaxzoo.create_model(name, **arguments)), jnp.float64)
    convert.load_state_dict(ours, arrays(twin))
    return ours, twin


def test_a_map_of_segmentation_is_of_a_class_in_a_region():
    ours, twin = randomised("lraspp_mobilenet_v3_large", num_classes=4)
    x = normal(2, 3, SIZE, SIZE)
    region = np.zeros((SIZE, SIZE))
    region[8:40, 16:30] = 1

    class Out(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = twin

        def forward(self, x):
            return self.model(x)["out"]

    layer = twin.backbone["16"]
    target = Partial(pixel_score, label=jnp.asarray(2), region=jnp.asarray(region))
    run = jax.jit(lambda images: activations_and_gradients(ours, images, "backbone.16", target)[:2])
    found = METHODS["grad-cam"](*run(jnp.asarray(to_last(x))))
    expected, _ = theirs("grad-cam", Out(), layer, None, x, [SemanticSegmentationTarget(2, region)] * 2)
    close(found, expected, bound=1e-9)


def test_the_usual_class_of_segmentation_is_that_of_most_pixels_of_the_region():
    logits = jnp.zeros((1, 2, 4, 3)).at[:, :, :3, 1].set(5).at[:, :, 3, 2].set(7)
    assert pixel_score(logits) == 5 * 6
    assert pixel_score(logits, region=jnp.asarray([[0, 0, 0, 1], [0, 0, 0, 1]])) == 7 * 2
    assert pixel_score({"out": logits}, label=2, region=jnp.asarray([[0, 1]])) == 7 * 2, "the region is resized"


def test_a_map_of_detection_is_of_the_nearest_box_of_a_class():
    """The gradient goes through proposals, non-maximum suppression and RoIAlign as torch's does."""
    pair = DetectorPair("fasterrcnn_mobilenet_v3_large_320_fpn", reduced=True)
    pair.model.eval()
    pair.twin.eval()
    x, sizes = pair.inputs()
    options = {"compiler_options": quickly(0)}
    found = jax.jit(lambda model, *inputs: model(*inputs), **options)(pair.model, jnp.asarray(x), jnp.asarray(sizes))
    chosen = [int(np.flatnonzero(valid)[place]) for valid, place in zip(found["valid"], (0, 2), strict=True)]
    boxes = np.stack([boxes[i] for boxes, i in zip(found["boxes"], chosen, strict=True)])
    labels = np.stack([labels[i] for labels, i in zip(found["labels"], chosen, strict=True)])
    near = Partial(box_score, box=jnp.asarray(boxes + 1.5), label=jnp.asarray(labels)[:, None])
    path = "backbone.body.16"
    run = jax.jit(lambda model, *inputs: activations_and_gradients(model, inputs, path, near), **options)
    activations, gradients, scores = run(pair.model, jnp.asarray(x), jnp.asarray(sizes))
    expected = [s[i] for s, i in zip(found["scores"], chosen, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12)  # another program

    kept = []

    def keep(module: torch.nn.Module, inputs: tuple, y: torch.Tensor) -> None:
        y.retain_grad()
        kept.append(y)

    pair.twin.get_submodule(path).register_forward_hook(keep)
    theirs = pair.twin(*map(as_torch, (x, sizes)))
    sum(theirs["scores"][n, i] for n, i in enumerate(chosen)).backward()
    close(activations, to_last(kept[0].detach().numpy()), bound=1e-9)
    close(gradients, to_last(kept[0].grad.numpy()), bound=1e-8)


def test_a_rollout_is_the_product_of_all_blocks_attention_with_the_shortcuts():
    build, theirs, *_ = PAIRS["vit"]
    torch.manual_seed(0)
    twin = theirs().double().eval()
    ours = cast(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))), jnp.float64)
    convert.load_state_dict(ours, arrays(twin))
    ours.eval()
    x, seen = normal(2, 3, SIZE, SIZE), []

    def look(block: torch.nn.Module, inputs: tuple, _: torch.Tensor) -> None:
        tokens = block.ln_1(inputs[0])
        seen.append(block.self_attention(tokens, tokens, tokens, need_weights=True)[1].detach().numpy())

    for block in twin.encoder.layers:
        block.register_forward_hook(look)
    twin(torch.tensor(x))
    rollout = np.eye(17)
    for weights in seen:
        rollout = (weights + np.eye(17)) / 2 @ rollout
    close(attention_rollout(ours, jnp.asarray(to_last(x))), rollout[:, 0, 1:].reshape(2, 4, 4), bound=1e-9)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("swin_t", r"of a class token and all others.*SwinTransformer has \(1, .*for images of 224 × 224"),
        ("lenet5", "LeNet5 has none for images of 32 × 32"),
    ],
)
def test_what_has_no_rollout_says_so(name, says):
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name))
    with pytest.raises(jaxzoo.UsageError, match=says):
        jax.eval_shape(attention_rollout, model, jaxzoo.card(name).example_inputs())


class Small(nnx.Module):
    """A network of a user's own."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.head = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.conv(x)).mean((1, 2)))


def by_hand(model: Small, x: jax.Array, label: int) -> jax.Array:
    """Its Grad-CAM: the weight of a channel is that of the head where the ReLU is open."""
    y = model.conv(x)
    weights = (model.head.kernel[...][:, label] * (y > 0)).mean((1, 2), keepdims=True) / (x.shape[1] * x.shape[2])
    return jnp.maximum((weights * y).sum(-1), 0)


def test_modules_of_ones_own_from_many_threads():
    models = [Small(nnx.Rngs(seed)) for seed in range(3)]
    x = jax.random.normal(jax.random.key(0), (2, 8, 10, 3))
    call = nnx.Conv.__call__
    with ThreadPoolExecutor(8) as pool:
        jobs = [(model, label, pool.submit(cam, model, x, label)) for model in models for label in range(4)]
        for model, label, job in jobs:
            np.testing.assert_allclose(job.result(), by_hand(model, x, label), atol=1e-6)
    assert nnx.Conv.__call__ is call


def test_targets_are_a_class_for_each_image_the_likeliest_or_a_function():
    model, x = Small(nnx.Rngs(0)), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    logits = model(x)
    each = jnp.concatenate([by_hand(model, x[i : i + 1], int(logits[i].argmax())) for i in range(2)])
    for target in (None, logits.argmax(-1), np.argmax(logits, -1).tolist(), lambda y: y.max(-1)):
        np.testing.assert_allclose(cam(model, x, target), each, atol=1e-6)
    np.testing.assert_allclose(jax.jit(cam)(model, x), each, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"layer": "convv"}, "no module 'convv'; nearest: conv"),
        ({"layer": "head"}, r"head has no map: it returns \(1, 4\)"),
        ({"method": "gradcam"}, "unknown method 'gradcam'; nearest: grad-cam"),
        ({"target": 4}, "class 4 has no score: there are fewer classes"),
        ({"target": -1}, "class -1 has no score"),
    ],
)
def test_bad_input_is_named(kwargs, says):
    with pytest.raises(jaxzoo.UsageError, match=says):
        cam(Small(nnx.Rngs(0)), jnp.ones((1, 8, 8, 3)), **kwargs)


def test_a_network_without_maps_says_so():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 2, rngs=nnx.Rngs(0)))
    with pytest.raises(jaxzoo.UsageError, match="Sequential has no layer that gives a map of its images"):
        cam(flat, jnp.ones((1, 4, 4, 3)))


def test_a_map_of_one_value_is_shown_as_nothing():
    np.testing.assert_array_equal(heatmap(jnp.ones((1, 2, 2)), (4, 4)), np.zeros((1, 4, 4)))
