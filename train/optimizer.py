"""Optimizers and learning-rate schedules, by optax."""

import optax

from train.config import Config


def learning_rate(config: Config, per_epoch: int) -> optax.Schedule:
    """The learning rate by step: a linear warm-up, then a cosine down to 0 at the last step, or no change."""
    total = config.epochs * per_epoch
    warmup = min(round(config.warmup_epochs * per_epoch), total // 2)
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(config.lr, max(1, total - warmup))
    else:
        after = optax.constant_schedule(config.lr)
    # The first step is already one part of the warm-up, since a step at 0 would learn nothing.
    before = optax.linear_schedule(config.lr / max(1, warmup), config.lr, max(1, warmup - 1))
    return optax.join_schedules([before, after], [warmup])


def optimizer(config: Config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW, or SGD with L2 as torch has them. Norms, biases, tokens and tables do not decay: only kernels."""

    def decays(params: dict) -> dict[str, bool]:
        return {name: name.endswith("kernel") for name in params}

    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    if config.optimizer == "adamw":
        return optax.chain(*clip, optax.adamw(schedule, weight_decay=config.weight_decay, mask=decays))
    decay = optax.add_decayed_weights(config.weight_decay, decays)
    return optax.chain(*clip, decay, optax.sgd(schedule, momentum=config.momentum or None))
