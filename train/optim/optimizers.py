"""Optimizers and learning-rate schedules: optax's, put together so that they compute what torch's compute."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.config.options import Config
from train.optim.parameter_groups import Kind

# TensorFlow's default of 1e-10 is too small for ImageNet; MnasNet and EfficientNet were trained with this one.
RMSPROP_TF_EPSILON = 1e-3
# torchvision's references give torch's RMSprop these instead of its defaults (0.99 and 1e-8), to come close to that.
RMSPROP_ALPHA, RMSPROP_EPSILON = 0.9, 0.0316

_NO_DECAY = {"norms": "norm", "biases": "bias", "tables": "table"}


def learning_rate(config: Config, per_epoch: int) -> optax.Schedule:
    """The learning rate by step, counted from 0: a warm-up, then the schedule down to `lr_min` at the last step.

    With `accumulate` k it is a schedule of updates, of which an epoch has per_epoch / k, and stays the same for the k
    steps that make one: such a run learns as one with k times the batch size does, but for BatchNorm's statistics.

    The warm-up is linear from `warmup_start` · lr, as torch's LinearLR; from 0, its first update is one part of it
    already, since an update at 0 would learn nothing. What follows is torch's CosineAnnealingLR, StepLR, PolynomialLR
    or ConstantLR, taken at every update, or MultiStepLR, which counts from the start of the run. `one_cycle` is torch's
    OneCycleLR: warm-up and decline are halves of a cosine, the former from `warmup_start`, or 1/25, of the peak.
    """
    updates_per_epoch = per_epoch / config.accumulate
    total, warmup = updates(config, per_epoch)
    if config.schedule == "one_cycle":
        by_update = _one_cycle(config, warmup, total)
    else:
        start = config.warmup_start * config.lr
        if start:
            before = optax.linear_schedule(start, config.lr, max(1, warmup))
        else:
            before = optax.linear_schedule(config.lr / max(1, warmup), config.lr, max(1, warmup - 1))
        after = _after(config, warmup, max(1, total - warmup), updates_per_epoch)
        by_update = optax.join_schedules([before, after], [warmup])
    # As a float, since optax divides counts, and JAX makes float32 of int32 even where there is float64.
    return lambda step: by_update(jnp.asarray(step // config.accumulate, float))


def updates(config: Config, per_epoch: int) -> tuple[int, int]:
    """How many updates a run makes, and how many of them, half at most, are its warm-up."""
    total = max(1, config.epochs * per_epoch // config.accumulate)
    return total, min(round(config.warmup_epochs * per_epoch / config.accumulate), total // 2)


def optimizer(
    config: Config,
    schedule: optax.Schedule,
    kinds: Mapping[str, Kind],
    depths: Mapping[str, int] | None = None,
    heads: Collection[str] = (),
) -> optax.GradientTransformation:
    """The optimizer of `config`, for parameters in a dictionary by dotted path; it may hold some of the model's only.

    In this order: gradients of `accumulate` steps are averaged, clipped by their global norm as torch's
    `clip_grad_norm_` does, L2 is added (SGD, RMSprop), and the optimizer's step is scaled by the learning rate, by
    `layer_decay` for every layer between a parameter and the head, and by `head_lr` in the head. AdamW and LAMB decay
    weights by the learning rate times `weight_decay`. LAMB adapts only parameters that decay, as timm's.

    The schedule goes by a count in the optimizer's state, which `at_step` sets to the step of the run.

    Args:
      schedule: what `learning_rate` gives: by step, not by update.
      kinds: `parameter_kinds` of the model.
      depths: `depths` of the model, which `layer_decay` needs.
      heads: dotted paths of the modules that make up the head, which `head_lr` needs.

    Raises:
      ValueError: there is a layer decay, but no depths.
    """

    def decays(params: Mapping[str, jax.Array]) -> dict[str, bool]:
        spared = {_NO_DECAY[name] for name in config.no_decay}
        return {name: config.weight_decay > 0 and kinds[name] not in spared for name in params}

    steps = [*_algorithm(config, schedule, decays)]
    if config.clip_norm:
        steps.insert(0, clip(config.clip_norm))
    if config.layer_decay != 1:
        if depths is None:
            raise ValueError("layer_decay needs the depths of the model's parameters")
        steps.append(_scale_by_depth(config.layer_decay, depths))
    if config.head_lr is not None and config.head_lr != 1:
        steps.append(_scale_heads(config.head_lr, heads))
    transform = optax.chain(*steps)
    if config.accumulate > 1:
        wide = jnp.result_type(float)
        return optax.MultiSteps(transform, config.accumulate, accumulator_dtype=wide).gradient_transformation()
    return transform


def at_step(state: Any, step: jax.Array) -> Any:
    """An optimizer's state with its schedule at this step of the run.

    The count in the state would lag behind: it misses steps that were left out, and counts one for all steps that
    `accumulate` makes an update of.
    """

    def is_schedule(part: Any) -> bool:
        return isinstance(part, optax.ScaleByScheduleState)

    return jax.tree.map(
        lambda part: part._replace(count=step) if is_schedule(part) else part, state, is_leaf=is_schedule
    )


def updated(state: Any) -> jax.Array | bool:
    """Whether the step that left an optimizer in this state moved parameters, or with `accumulate` only added up."""
    return state.mini_step == 0 if isinstance(state, optax.MultiStepsState) else True


def clip(most: float) -> optax.GradientTransformation:
    """Scales gradients by `most / (norm + 1e-6)` where that is less than 1, as torch's `clip_grad_norm_` does."""

    def update(gradients, state, params=None):
        factor = jnp.minimum(1, most / (optax.tree.norm(gradients) + 1e-6))
        return jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _algorithm(
    config: Config, rate: optax.Schedule, decays: Callable[[Mapping], Mapping]
) -> list[optax.GradientTransformation]:
    """One optimizer as torch has it; rmsprop_tf and lamb as timm has them."""
    scale = optax.scale_by_learning_rate(rate)
    decay = optax.add_decayed_weights(config.weight_decay, decays)
    momentum = [optax.trace(config.momentum, nesterov=config.optimizer == "sgd_nesterov")] if config.momentum else []
    match config.optimizer:
        case "sgd" | "sgd_nesterov":
            return [decay, *momentum, scale]
        case "rmsprop":
            rms = optax.scale_by_rms(RMSPROP_ALPHA, RMSPROP_EPSILON, eps_in_sqrt=False)
            return [decay, rms, *momentum, scale]
        case "rmsprop_tf":
            # The momentum is one of steps, not of gradients: each entered at the learning rate of its time.
            rms = optax.scale_by_rms(RMSPROP_ALPHA, RMSPROP_TF_EPSILON, initial_scale=1.0)
            return [decay, rms, scale, *momentum]
        case "adamw":
            return [optax.scale_by_adam(), decay, scale]
        case "lamb":
            trust = optax.masked(optax.scale_by_trust_ratio(), decays)
            return [optax.scale_by_adam(eps=1e-6), decay, trust, scale]
    raise ValueError(f"there is no optimizer {config.optimizer!r}")


def _after(config: Config, warmup: int, length: int, updates_per_epoch: float) -> optax.Schedule:
    """The rate by update after the warm-up, at `length` updates and beyond `lr_min`."""
    match config.schedule:
        case "cosine":
            return optax.cosine_decay_schedule(config.lr, length, config.lr_min / config.lr)
        case "constant":
            return optax.constant_schedule(config.lr)
        case "poly":
            return optax.polynomial_schedule(config.lr, config.lr_min, config.lr_power, length)
        case "step" | "multistep":
            if config.schedule == "step":
                falls = np.arange(1, 1 + int(length / (config.lr_step * updates_per_epoch))) * config.lr_step
            else:
                falls = np.array(config.lr_steps) - warmup / updates_per_epoch
            # The first update whose epoch has come: looked up, since a quotient may be rounded to the wrong side.
            updates = np.ceil(falls * updates_per_epoch - 1e-6)
            rates = config.lr * config.lr_gamma ** np.arange(len(falls) + 1)
            return lambda update: jnp.asarray(rates)[jnp.searchsorted(jnp.asarray(updates), update, side="right")]
    raise ValueError(f"there is no schedule {config.schedule!r}")


def _one_cycle(config: Config, warmup: int, total: int) -> optax.Schedule:
    peak, start = max(warmup, 1) - 1, config.lr * (config.warmup_start or 1 / 25)

    def between(first: float, last: float, part: jax.Array) -> jax.Array:
        return last + (first - last) / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1)))

    def rate(update: jax.Array) -> jax.Array:
        up = between(start, config.lr, update / max(peak, 1))
        down = between(config.lr, config.lr_min, (update - peak) / max(total - 1 - peak, 1))
        return jnp.where(update < peak, up, down)

    return rate


def _scale_by_depth(decay: float, depths: Mapping[str, int]) -> optax.GradientTransformation:
    head = max(depths.values())
    scales = {name: decay ** (head - depth) for name, depth in depths.items()}
    return optax.stateless(lambda updates, _: {name: update * scales[name] for name, update in updates.items()})


def _scale_heads(factor: float, heads: Collection[str]) -> optax.GradientTransformation:
    begin = tuple(f"{path}." for path in heads)
    return optax.stateless(
        lambda updates, _: {
            name: update * (factor if name.startswith(begin) else 1) for name, update in updates.items()
        }
    )
