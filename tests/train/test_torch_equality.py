"""The same run in torch: from the same weights, on the same batches, through a whole schedule, in float64.

Torch's side is put together as torchvision's references/classification/train.py does it: set_weight_decay,
SequentialLR of LinearLR and CosineAnnealingLR, CrossEntropyLoss with label smoothing, clip_grad_norm_, and an average
of weights and statistics by AveragedModel.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torchvision
from flax import nnx
from torch.optim.swa_utils import AveragedModel

import convert
from convert.rules import torch_arrays
from jaxzoo import Preprocess
from jaxzoo.classification.resnet import Bottleneck, ResNet
from jaxzoo.classification.vision_transformer import VisionTransformer
from tests.compare import arrays, cast, close
from tests.train.tiny import Tiny
from train.augment import Augmentation
from train.config.options import Config
from train.engine import step
from train.optim.optimizers import learning_rate, optimizer
from train.optim.parameter_groups import parameter_kinds
from train.setup.prepare import average_of
from train.tasks.classification import PLAIN, Classification

STEPS, PER_EPOCH, CLASSES, SIZE, BATCH = 50, 10, 7, 32, 16
CLASS_NAMES, PREPROCESS = [str(i) for i in range(CLASSES)], Preprocess(crop=SIZE)
RUN = {
    **{"epochs": STEPS // PER_EPOCH, "warmup_epochs": 1.0, "warmup_start": 0.1, "lr_min": 1e-4, "schedule": "cosine"},
    **{"label_smoothing": 0.1, "clip_norm": 1.0, "ema": 0.95},
}
TRANSFORMER = {"image_size": SIZE, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
NETWORKS = {
    "ResNet, SGD": (
        lambda rngs: ResNet(Bottleneck, [1, 1, 1, 1], CLASSES, width_per_group=8, rngs=rngs),
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], CLASSES, width_per_group=8
        ),
        Config(**RUN, optimizer="sgd", lr=0.05, weight_decay=1e-3, no_decay=("norms",)),
        lambda groups: torch.optim.SGD(groups, momentum=0.9),
    ),
    "Vision Transformer, AdamW": (
        lambda rngs: VisionTransformer(**TRANSFORMER, num_classes=CLASSES, rngs=rngs),
        lambda: torchvision.models.VisionTransformer(**TRANSFORMER, num_classes=CLASSES),
        Config(**RUN, optimizer="adamw", lr=3e-3, weight_decay=0.1, no_decay=("norms", "biases", "tables")),
        torch.optim.AdamW,
    ),
}


class Exact(Classification):
    """Sees images, and so computes the loss, in float64; by numbers that no fusion can round in another way."""

    def normalised(self, images):
        return (images.astype(jnp.float64) - 128) / 64


def batch(index: int) -> dict[str, np.ndarray]:
    """Noise, brighter for higher labels."""
    rng = np.random.default_rng([7, index % PER_EPOCH])
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    images = (rng.integers(0, 160, (BATCH, SIZE, SIZE, 3)) + 13 * labels[:, None, None, None]).astype(np.uint8)
    return {"image": images, "label": labels, "mask": np.ones(BATCH, bool), "indices": labels}


def ours(build, weights: dict, config: Config) -> tuple[list[float], dict, dict]:
    """Losses, and by torch's names the state and its average at the end."""
    model = cast(nnx.eval_shape(lambda: build(nnx.Rngs(0))), jnp.float64)
    convert.load_state_dict(model, weights)
    nnx.reseed(model, dropout=0)
    schedule = learning_rate(config, PER_EPOCH)
    steps, state = step.build(
        model,
        [Exact(CLASS_NAMES, PREPROCESS, label_smoothing=config.label_smoothing, dtype=jnp.float64)],
        optimizer(config, schedule, parameter_kinds(model)),
        schedule,
        BATCH,
        per_epoch=PER_EPOCH,
        seed=0,
        dtype=jnp.float64,
        devices=jax.local_devices()[:1],
        average=average_of(config, PER_EPOCH),
    )
    losses, norms = [], []
    for index in range(STEPS):
        state, report = steps.train[0](state, steps.put_batch(batch(index)), steps.put_control())
        losses.append(float(report["loss"]))
        norms.append(float(report["gradient_norm"]))
    assert max(norms) > config.clip_norm  # else clipping would not show
    state = jax.device_get(state)
    return losses, torch_arrays(model, state["params"] | state["stats"]), torch_arrays(model, state["ema"])


def theirs(twin: torch.nn.Module, config: Config, build) -> tuple[list[float], dict, dict]:
    def groups():
        """torchvision's set_weight_decay with the options of `config`."""
        norms = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.LayerNorm)
        for module in twin.modules():
            for name, parameter in module.named_parameters(recurse=False):
                kind = "norms" if isinstance(module, norms) else "biases" if name.endswith("bias") else "weights"
                kind = "tables" if name in ("class_token", "pos_embedding") else kind
                decay = 0.0 if kind in config.no_decay else config.weight_decay
                yield {"params": [parameter], "weight_decay": decay, "lr": config.lr}

    update, warmup = build(list(groups())), round(config.warmup_epochs * PER_EPOCH)
    schedule = torch.optim.lr_scheduler.SequentialLR(
        update,
        [
            torch.optim.lr_scheduler.LinearLR(update, config.warmup_start, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(update, STEPS - warmup, config.lr_min),
        ],
        [warmup],
    )
    average = AveragedModel(
        twin, avg_fn=lambda old, new, _: config.ema * old + (1 - config.ema) * new, use_buffers=True
    )
    criterion, losses = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing), []
    normalised = Exact(CLASS_NAMES, PREPROCESS).normalised
    for index in range(STEPS):
        images = torch.tensor(np.array(normalised(jnp.asarray(batch(index)["image"])))).permute(0, 3, 1, 2)
        loss = criterion(twin(images), torch.tensor(batch(index)["label"]).long())
        update.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), config.clip_norm)
        update.step()
        schedule.step()
        average.update_parameters(twin)
        if index < warmup:
            average.n_averaged.fill_(0)
        losses.append(loss.item())
    return losses, arrays(twin), arrays(average.module)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_is_the_same_in_torch(name):
    build, build_twin, config, torch_optimizer = NETWORKS[name]
    torch.manual_seed(0)
    twin = build_twin().double().train()
    weights = {key: value.copy() for key, value in arrays(twin).items()}
    our_losses, our_end, our_average = ours(build, weights, config)
    losses, end, average = theirs(twin, config, torch_optimizer)
    assert losses[-1] < 0.9 * losses[0]
    np.testing.assert_allclose(our_losses, losses, rtol=1e-10)  # measured: 1e-14
    for found, expected in ((our_end, end), (our_average, average)):
        assert found.keys() == expected.keys()
        for key in expected:
            if np.issubdtype(expected[key].dtype, np.floating):  # not num_batches_tracked
                close(found[key], expected[key], key, 1e-8)  # measured: 1e-11


# A small network, with what falls by chance and with fewer digits


def small(dropout: float, augmentation: Augmentation, dtype=jnp.float64):
    """Steps and state of Tiny, its task, and its twin in torch."""
    model = cast(Tiny(CLASSES, dropout, rngs=nnx.Rngs(params=0, dropout=0)), jnp.float64)
    task = Exact(CLASS_NAMES, PREPROCESS, augmentation=augmentation, label_smoothing=0.1, dtype=dtype)
    rate, device = optax.constant_schedule(0.1), jax.local_devices()[:1]
    options = {"per_epoch": PER_EPOCH, "seed": 5, "dtype": dtype, "devices": device}
    steps, state = step.build(model, [task], optax.sgd(0.1), rate, BATCH, **options)
    layers = {"conv": torch.nn.Conv2d(3, 8, 4, 4, bias=False), "bn": torch.nn.BatchNorm2d(8)}
    twin = torch.nn.ModuleDict(layers | {"fc": torch.nn.Linear(512, CLASSES)}).double()
    weights = torch_arrays(model, state["params"] | state["stats"])
    twin.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    return model, steps, state, task, twin


def torchs_loss(twin: torch.nn.ModuleDict, images, targets, kept=1.0) -> torch.Tensor:
    """Of images (N, H, W, C); `kept` (N, 512) is what dropout multiplies features with."""
    x = torch.tensor(np.array(images)).permute(0, 3, 1, 2).to(twin["conv"].weight.dtype)
    x = torch.relu(twin["bn"](twin["conv"](x))).permute(0, 2, 3, 1).flatten(1)
    y = twin["fc"](x * (kept if isinstance(kept, float) else torch.tensor(np.array(kept))))
    targets = torch.tensor(np.array(targets))
    return torch.nn.functional.cross_entropy(y.to(targets.dtype), targets, label_smoothing=0.1)


def test_mixed_images_and_dropout_are_the_same_in_torch():
    """Both follow from (seed, step); dropout's stream begins every step as `nnx.reseed(model, dropout=...)` has it."""
    rate = 0.3
    model, steps, state, task, twin = small(rate, dataclasses.replace(PLAIN, mixup=0.4, cutmix=1.0))
    update = torch.optim.SGD(twin.parameters(), lr=0.1)
    for index in range(5):
        augmenting, dropping = step.augmenting_and_dropping(5, index)
        images, targets = task.augmented(batch(index), augmenting)
        drawn = jax.random.fold_in(jax.random.fold_in(dropping, 0), 0)
        kept = jax.random.bernoulli(drawn, 1 - rate, (BATCH, 512)) / (1 - rate)
        loss = torchs_loss(twin, images, targets, kept)
        update.zero_grad()
        loss.backward()
        update.step()
        state, report = steps.train[0](state, steps.put_batch(batch(index)), steps.put_control())
        close(report["loss"], loss, f"loss {index}", 1e-12)
    for name, value in torch_arrays(model, jax.device_get(state["params"] | state["stats"])).items():
        close(value, arrays(twin)[name], name, 1e-11)


def test_gradients_in_bfloat16_are_as_exact_as_torchs():
    exact, ours = {}, {}
    for dtype, found in ((jnp.float64, exact), (jnp.bfloat16, ours)):
        model, steps, state, task, twin = small(0.0, PLAIN, dtype)
        found |= torch_arrays(model, jax.device_get(steps.gradients(state, steps.put_batch(batch(0)))))
    images, targets = task.augmented(batch(0), jax.random.key(0))
    torchs_loss(twin.bfloat16(), images, targets).backward()
    theirs = {name: parameter.grad.double().numpy() for name, parameter in twin.named_parameters()}
    norm = np.linalg.norm(np.concatenate([exact[name].ravel() for name in theirs]))
    error, allowed = (
        np.linalg.norm(np.concatenate([(found[name] - exact[name]).ravel() for name in theirs])) / norm
        for found in (ours, theirs)
    )
    assert 1e-4 < error < 2 * allowed < 0.02
