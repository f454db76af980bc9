"""Schedules and optimizers against torch's own in float64, and against timm's where torch has none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import timm.optim
import torch

from tests.compare import close
from train.config.options import Config
from train.optim.optimizers import at_step, clip, learning_rate, optimizer

SHAPES = {"conv.kernel": (3, 3, 2, 4), "conv.bias": (4,), "norm.scale": (4,), "fc.kernel": (4, 5), "token": (1, 5)}
KINDS = {"conv.kernel": "kernel", "conv.bias": "bias", "norm.scale": "norm", "fc.kernel": "kernel", "token": "table"}
RUN = {"epochs": 4, "lr": 0.1, "warmup_epochs": 1.0, "warmup_start": 0.1, "clip_norm": 0.0, "weight_decay": 0.05}
STEPS, PER_EPOCH = 12, 5


def options(**given) -> Config:
    return Config(**RUN | given)


def draw(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: scale * rng.standard_normal(shape) for name, shape in SHAPES.items()}


def ours(config: Config, gradients: list[dict], **places) -> dict[str, np.ndarray]:
    """The parameters after these gradients."""
    transform = optimizer(config, learning_rate(config, PER_EPOCH), **{"kinds": KINDS} | places)
    params = jax.tree.map(jnp.asarray, draw(0))
    state = transform.init(params)
    update = jax.jit(lambda g, s, p, step: transform.update(g, at_step(s, step), p))
    for step, gradient in enumerate(gradients):
        updates, state = update(gradient, state, params, step)
        params = optax.apply_updates(params, updates)
    return params


def theirs(build, config: Config, gradients: list[dict], spared=("norm", "bias", "table")) -> dict[str, np.ndarray]:
    """The same in torch: `build` makes the optimizer of groups; the learning rate is set at every step."""
    params = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in draw(0).items()}
    groups = [
        {"params": [p for name, p in params.items() if KINDS[name] not in spared], "weight_decay": config.weight_decay},
        {"params": [p for name, p in params.items() if KINDS[name] in spared], "weight_decay": 0.0},
    ]
    update, schedule = build(groups), learning_rate(config, PER_EPOCH)
    for step, gradient in enumerate(gradients):
        for group in update.param_groups:
            group["lr"] = float(schedule(step))
        for name, p in params.items():
            p.grad = torch.tensor(gradient[name])
        if config.clip_norm:
            torch.nn.utils.clip_grad_norm_(params.values(), config.clip_norm)
        update.step()
    return {name: p.detach().numpy() for name, p in params.items()}


GRADIENTS = [draw(seed) for seed in range(1, STEPS + 1)]

TORCH = {
    "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "sgd_nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, momentum=0.9, eps=0.0316, alpha=0.9),
    "rmsprop_tf": lambda groups: timm.optim.RMSpropTF(groups, momentum=0.9, eps=1e-3),
    "adamw": torch.optim.AdamW,
    "lamb": lambda groups: timm.optim.Lamb(groups, max_grad_norm=None),
}


@pytest.mark.parametrize("name", TORCH)
def test_an_optimizer_takes_torchs_steps(name):
    config = options(optimizer=name, clip_norm=3.0)
    expected = theirs(TORCH[name], config, GRADIENTS)
    for path, value in ours(config, GRADIENTS).items():
        close(value, expected[path], path, 1e-12)


def test_lamb_without_weight_decay_adapts_nothing_as_timms():
    config = options(optimizer="lamb", weight_decay=0.0)
    expected = theirs(TORCH["lamb"], config, GRADIENTS)
    for path, value in ours(config, GRADIENTS).items():
        close(value, expected[path], path, 1e-12)


@pytest.mark.parametrize("spared", [(), ("norms",), ("biases", "tables")])
def test_weight_decay_spares_what_it_is_told_to(spared):
    config = options(optimizer="sgd", no_decay=spared)
    kinds = [{"norms": "norm", "biases": "bias", "tables": "table"}[name] for name in spared]
    expected = theirs(TORCH["sgd"], config, GRADIENTS, kinds)
    for path, value in ours(config, GRADIENTS).items():
        close(value, expected[path], path, 1e-12)


def test_no_momentum_is_plain_descent():
    config = options(optimizer="sgd", momentum=0.0)
    expected = theirs(torch.optim.SGD, config, GRADIENTS)
    for path, value in ours(config, GRADIENTS).items():
        close(value, expected[path], path, 1e-12)


@pytest.mark.parametrize("most", [0.5, 1e6])
def test_gradients_are_clipped_as_torch_clips_them(most):
    gradients = draw(1)
    clipped, _ = clip(most).update(gradients, optax.EmptyState())
    params = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
    for name, p in params.items():
        p.data, p.grad = p.data.double(), torch.tensor(gradients[name])
    torch.nn.utils.clip_grad_norm_(params.values(), most)
    for name, p in params.items():
        close(clipped[name], p.grad, name, 1e-14)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulating_equals_a_batch_of_that_many_times_the_size(name):
    config = options(optimizer=name, accumulate=3, clip_norm=1.0, epochs=6)
    together = [jax.tree.map(lambda *parts: sum(parts) / 3, *GRADIENTS[i : i + 3]) for i in range(0, STEPS, 3)]
    large = options(optimizer=name, clip_norm=1.0, epochs=6)
    transform = optimizer(large, lambda update: learning_rate(config, PER_EPOCH)(3 * update), KINDS)
    params = draw(0)
    state = transform.init(params)
    for gradient in together:
        updates, state = transform.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    for path, value in ours(config, GRADIENTS).items():
        close(value, params[path], path, 1e-12)


def test_parameters_move_only_when_enough_is_accumulated():
    config = options(optimizer="adamw", accumulate=4)
    for path, value in ours(config, GRADIENTS[:3]).items():
        np.testing.assert_array_equal(value, draw(0)[path])
    assert all((value != draw(0)[path]).all() for path, value in ours(config, GRADIENTS[:4]).items())


def test_layer_decay_slows_each_layer_by_its_distance_from_the_head():
    depths = {"conv.kernel": 0, "conv.bias": 0, "norm.scale": 1, "token": 1, "fc.kernel": 2}
    config = options(optimizer="adamw")
    plain = ours(config, GRADIENTS[:1])
    slowed = ours(options(optimizer="adamw", layer_decay=0.5), GRADIENTS[:1], depths=depths)
    for path, depth in depths.items():
        moved = plain[path] - draw(0)[path]
        close(slowed[path] - draw(0)[path], 0.5 ** (2 - depth) * moved, path, 1e-10)
    with pytest.raises(ValueError, match="depths"):
        optimizer(options(layer_decay=0.5), lambda step: 0.1, KINDS)


def test_the_head_learns_at_a_rate_of_its_own():
    config = options(optimizer="adamw")
    plain = ours(config, GRADIENTS[:1])
    faster = ours(options(optimizer="adamw", head_lr=10.0), GRADIENTS[:1], heads=["fc"])
    for path, value in plain.items():
        factor = 10 if path == "fc.kernel" else 1
        close(faster[path] - draw(0)[path], factor * (value - draw(0)[path]), path, 1e-10)


def test_an_optimizer_takes_some_of_the_parameters():
    config = options(optimizer="lamb", layer_decay=0.9)
    params = {"fc.kernel": jnp.ones((4, 5))}
    transform = optimizer(config, learning_rate(config, PER_EPOCH), KINDS, dict.fromkeys(KINDS, 0))
    updates, state = transform.update(params, transform.init(params), params)
    assert updates.keys() == params.keys()
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) < 3 * 20


# Schedules


def rates(config: Config, steps: int, per_epoch: int = PER_EPOCH) -> np.ndarray:
    return np.array(jax.jit(jax.vmap(learning_rate(config, per_epoch)))(jnp.arange(steps)))


def torch_rates(steps: int, lr: float, *builders) -> np.ndarray:
    """Rates of torch's schedulers in sequence: (builder, first step)."""
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    made = [build(sgd) for build, _ in builders]
    schedule = torch.optim.lr_scheduler.SequentialLR(sgd, made, [first for _, first in builders[1:]])
    found = []
    for _ in range(steps):
        found.append(sgd.param_groups[0]["lr"])
        sgd.step()
        schedule.step()
    return np.array(found)


AFTER = {
    "cosine": lambda sgd: torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=40, eta_min=1e-3),
    "constant": lambda sgd: torch.optim.lr_scheduler.ConstantLR(sgd, factor=1),
    "step": lambda sgd: torch.optim.lr_scheduler.StepLR(sgd, step_size=15, gamma=0.3),
    "poly": lambda sgd: torch.optim.lr_scheduler.PolynomialLR(sgd, total_iters=40, power=0.9),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_schedule_goes_as_torchs_does(name):
    lr_min = 1e-3 if name == "cosine" else 0.0
    config = options(epochs=10, warmup_epochs=2, schedule=name, lr_min=lr_min, lr_step=3, lr_gamma=0.3)
    warmup = lambda sgd: torch.optim.lr_scheduler.LinearLR(sgd, start_factor=0.1, total_iters=10)  # noqa: E731
    close(rates(config, 50), torch_rates(50, 0.1, (warmup, 0), (AFTER[name], 10)), name, 1e-12)


@pytest.mark.parametrize("warmup", [0, 7])
def test_multistep_is_torchs_beside_a_warm_up(warmup):
    """As in references/detection: MultiStepLR takes its steps by epoch, LinearLR by update, both from the first."""
    config = options(
        epochs=10, warmup_epochs=warmup / 5, warmup_start=0.001, schedule="multistep", lr_steps=(4, 6, 9), lr_gamma=0.3
    )
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    by_epoch = torch.optim.lr_scheduler.MultiStepLR(sgd, [4, 6, 9], gamma=0.3)
    by_update = torch.optim.lr_scheduler.LinearLR(sgd, start_factor=0.001 if warmup else 1, total_iters=warmup)
    expected = []
    for _ in range(10):
        for _ in range(5):
            expected.append(sgd.param_groups[0]["lr"])
            sgd.step()
            by_update.step()
        by_epoch.step()
    close(rates(config, 50), np.array(expected), "multistep", 1e-12)


def test_one_cycle_is_torchs():
    config = options(epochs=10, warmup_epochs=3, warmup_start=0.04, lr_min=0.1 / 25 / 100, schedule="one_cycle")
    one_cycle = lambda sgd: torch.optim.lr_scheduler.OneCycleLR(  # noqa: E731
        sgd, 0.1, 50, pct_start=0.3, div_factor=25, final_div_factor=100, cycle_momentum=False
    )
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, expected = one_cycle(sgd), []
    for step in range(50):
        expected.append(sgd.param_groups[0]["lr"])
        sgd.step()
        if step < 49:
            schedule.step()
    close(rates(config, 50), np.array(expected), "one_cycle", 1e-12)
    default = rates(options(epochs=10, warmup_epochs=3, warmup_start=0.0, schedule="one_cycle"), 50)
    close(default[0], 0.1 / 25, bound=1e-12)


@pytest.mark.parametrize("name", ["cosine", "poly", "one_cycle"])
def test_schedules_end_at_the_least_rate(name):
    config = options(schedule=name, lr_min=0.02)
    assert rates(config, 21)[-1] == pytest.approx(0.02)
    assert rates(config, 200)[-1] == pytest.approx(0.02)


def test_a_step_of_half_an_epoch_falls_in_its_middle():
    config = options(epochs=2, warmup_epochs=0, schedule="step", lr_step=0.5, lr_gamma=0.5)
    np.testing.assert_allclose(rates(config, 20, 10), np.repeat([0.1, 0.05, 0.025, 0.0125], 5), rtol=1e-12)


def test_many_falls_land_on_the_first_step_of_their_epoch():
    config = options(epochs=300, warmup_epochs=0, schedule="step", lr_step=1, lr_gamma=0.98)
    per_epoch = 7
    found = rates(config, 300 * per_epoch, per_epoch)
    np.testing.assert_allclose(found, 0.1 * 0.98 ** (np.arange(300 * per_epoch) // per_epoch), rtol=1e-12)


def test_accumulated_steps_share_the_rate_of_their_update():
    config = options(epochs=6, accumulate=3, warmup_start=0.0, warmup_epochs=2)
    found = rates(config, 60, 10)
    np.testing.assert_array_equal(found[::3], found[2::3])
    # 20 updates, of which 2 of 6 epochs warm up: 7
    np.testing.assert_allclose(found[:21:3], np.arange(1, 8) * 0.1 / 7, rtol=1e-12)
    assert found[-1] < 0.002 and len(np.unique(found)) == 19  # the peak comes twice


def test_the_warm_up_takes_half_of_a_run_at_most():
    found = rates(options(epochs=2, warmup_epochs=50, warmup_start=0.0), 10)
    assert found.argmax() in (4, 5)


def test_a_run_of_one_step_has_a_rate():
    for name in ("cosine", "constant", "step", "multistep", "poly", "one_cycle"):
        found = rates(options(epochs=1, schedule=name, lr_steps=(16, 22), accumulate=1), 1, 1)
        assert np.isfinite(found).all() and found[0] > 0
