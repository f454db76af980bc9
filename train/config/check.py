"""Impossible values of options, refused before anything else is looked at."""

import math
from collections.abc import Iterator

from jaxzoo.errors import UsageError
from jaxzoo.images import as_text
from train.config.options import UNCHANGED, Config, model_arguments, option, stages

WHOLE_NUMBERS = {  # by the least that is possible
    0: "shift save_every seed patience ra_magnitude process_id",
    1: "epochs batch_size eval_batch_size image_size train_size workers devices num_processes keep log_every ra_ops "
    "repeats accumulate",
}
NUMBERS = {
    "of at least 0": "lr_min lr_gamma lr_power warmup_epochs weight_decay clip_norm mixup cutmix aux_weight",
    "above 0": "lr lr_step head_lr",
}
FRACTIONS = (
    "momentum label_smoothing crop_area val_fraction warmup_start random_erase layer_decay dropout drop_path ema"
)


def check(config: Config) -> None:
    """Raises UsageError for the first option whose value is impossible, alone or beside the others."""
    for least, names in WHOLE_NUMBERS.items():
        for name, value in _given(config, names):
            if value < least:
                raise UsageError(f"{option(name)} is {value}; it must be a whole number of at least {least}")
    for what, names in NUMBERS.items():
        for name, value in _given(config, names):
            if not 0 <= value < math.inf or (what == "above 0" and value == 0):
                raise UsageError(f"{option(name)} is {value}; it must be a number {what}")
    for name, value in _given(config, FRACTIONS):
        if not 0 <= value <= 1:
            raise UsageError(f"{option(name)} is {value}; it must be between 0 and 1")
        no_image = {"crop_area": [0], "val_fraction": [0] if config.eval_only else [0, 1]}
        if value in no_image.get(name, []):
            raise UsageError(f"{option(name)} is {value}, which leaves no image to look at")
        if value in {"ema": [1], "dropout": [1], "drop_path": [1], "layer_decay": [0]}.get(name, []):
            raise UsageError(f"{option(name)} is {value}, which leaves nothing to learn from")
    for broken, sentence in _rules(config):
        if broken:
            raise UsageError(sentence)
    stages(config)
    model_arguments(config)


def _given(config: Config, names: str) -> list[tuple[str, float]]:
    return [(name, value) for name in names.split() if (value := getattr(config, name)) is not None]


def _rules(c: Config) -> Iterator[tuple[bool, str]]:
    """What must not be, and the sentence that says so."""
    yield c.seed >= 2**32, f"--seed is {c.seed}; it must be below 2^32"
    yield (
        bool(c.out) and as_text(c.out) != c.out,
        f"--out is {c.out}; checkpoints need a folder whose name is UTF-8: take another",
    )
    yield c.ra_magnitude > 30, f"--ra-magnitude is {c.ra_magnitude}; the strongest is 30"
    yield (
        not all(0 <= part < math.inf for part in c.color_jitter) or c.color_jitter[3] > 0.5,
        "--color-jitter takes brightness, contrast and saturation of at least 0, and hue up to 0.5",
    )
    yield (
        bool(c.progressive and (c.train_size or c.image_size)),
        "--progressive names the image sizes, the last one for evaluation too: leave out the others",
    )
    for name in ("scale", "eval_scales"):
        factors = getattr(c, name) or (1,)
        yield not all(0 < factor < math.inf for factor in factors), f"{option(name)} takes numbers above 0"
    yield (
        (c.schedule == "multistep" and not c.lr_steps) or sorted({0, *c.lr_steps}) != [0, *c.lr_steps],
        "--schedule multistep takes the epochs after which the rate decays, such as --lr-steps 16 22, the first first",
    )
    low, high = c.scale or (1, 1)
    yield low > high, f"--scale takes the smaller factor first, not {low} {high}"
    yield (
        bool(c.weights and c.weights_backbone),
        "--weights are those of the whole model, its backbone too: leave out --weights-backbone",
    )
    yield (
        c.eval_only and not (c.weights or c.resume),
        "--eval-only needs weights to evaluate: add --weights FILE or --resume RUN",
    )
    yield (
        bool(c.freeze and c.train_only),
        "--freeze and --train-only say the same thing in two ways; give one of them",
    )
    yield (
        c.cache_features and bool(c.freeze or c.train_only not in ((), ("head",))),
        "--cache-features trains the head alone: leave out --freeze and --train-only",
    )
    for name, off in UNCHANGED.items():
        yield (
            c.cache_features and getattr(c, name) not in (off, getattr(Config, name)),
            f"--cache-features sees every image once, as it is: leave out {option(name)}",
        )
    by_hand = (c.coordinator, c.num_processes, c.process_id)
    yield (
        any(part is not None for part in by_hand) and (None in by_hand or c.distributed == "auto"),
        "processes started by hand need --coordinator, --num-processes and --process-id; "
        "--distributed auto finds all three by itself",
    )
