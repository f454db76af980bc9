"""The same run of a detector in torch: torchvision's losses over twenty steps of SGD in float64, from the same
weights on the same batches, where both choose what they learn from by the lowest indices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from tests.compare import quickly
from tests.parity.detectors import DetectorPair
from tests.parity.ladder import twin_loss
from train.data import Data
from train.engine import step
from train.tasks.detection import Detection

QUICK = ("fasterrcnn_resnet50_fpn", "fcos_resnet50_fpn")
ALL = (*QUICK, "retinanet_resnet50_fpn", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large")
STEPS, BATCHES, MOMENTUM = 20, 4, 0.9
SMALL = (64, 96)  # pixels, of a canvas for detectors of images of any size


class Deterministic(Detection):
    """Samplers take the lowest indices, as the twin's do."""

    def training_loss(self, model, batch, key):
        model.set_attributes(deterministic=True, raise_if_not_found=False)
        return super().training_loss(model, batch, key)


def ours(pair: DetectorPair, batches, rate: float) -> list[dict[str, float]]:
    """The losses of every step, by name."""
    model = pair.model
    steps, state = step.build(
        model,
        [Deterministic(Data([], []), model.transform, dtype=jnp.float64)],
        optax.sgd(rate, momentum=MOMENTUM),
        optax.constant_schedule(rate),
        2,
        per_epoch=BATCHES,
        seed=0,
        dtype=jnp.float64,
        devices=jax.local_devices()[:1],
    )
    found, take_step = [], None
    for index in range(STEPS):
        (images, sizes), targets = batches[index % BATCHES]
        batch = {"image": images, "size": sizes, "indices": np.arange(2, dtype=np.int32)} | targets
        given = state, steps.put_batch(batch), steps.put_control()
        take_step = take_step or steps.train[0].lower(*given).compile(compiler_options=quickly(1))
        state, report = take_step(*given)
        found.append({name: float(value) for name, value in jax.device_get(report).items() if name.startswith("loss_")})
    return found


def theirs(pair: DetectorPair, batches, rate: float) -> list[dict[str, float]]:
    pair.rewind()
    pair.twin.train()
    update, found = torch.optim.SGD(pair.twin.parameters(), lr=rate, momentum=MOMENTUM), []
    for index in range(STEPS):
        update.zero_grad()
        loss, parts = twin_loss(pair, *batches[index % BATCHES])
        loss.backward()
        update.step()
        found.append({f"loss_{name.removeprefix('loss_')}": float(value) for name, value in parts.items()})
    return found


@pytest.mark.full(*QUICK)
@pytest.mark.parametrize("name", ALL)
def test_a_run_is_the_same_in_torch(name):
    pair = DetectorPair(name, reduced=True)
    pair.size = pair.size if pair.model.transform.fixed_size else SMALL
    batches = [(pair.inputs(seed), pair.labels(seed)) for seed in range(BATCHES)]
    pair.rewind()
    pair.twin.train()
    twin_loss(pair, *batches[0])[0].backward()
    norm = float(torch.stack([p.grad.square().sum() for p in pair.twin.parameters()]).sum().sqrt())
    rate = 0.01 / norm
    found, expected = ours(pair, batches, rate), theirs(pair, batches, rate)
    first, last = (sum(sum(step.values()) for step in expected[at]) for at in (slice(0, 4), slice(-4, None)))
    assert last < 0.99 * first
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one.keys() == other.keys()
        for loss in other:
            assert abs(one[loss] - other[loss]) <= 1e-7 * abs(other[loss]), (index, loss)
