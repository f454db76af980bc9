"""What options need to do anything. One that would do nothing is refused before a run starts."""

import dataclasses
from collections.abc import Callable, Collection

from jaxzoo.errors import UsageError
from train.config.options import Config, head_alone, option
from train.config.recipes import options as recipe_options


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of a run once its data and its model are; `asked` are its options before defaults filled them."""

    asked: Config
    config: Config
    has_split: bool  # whether the data says itself what is held out
    steps: int
    batch_norm: bool  # whether the model has such layers
    auxiliary: bool  # and auxiliary heads
    head_learns: bool


@dataclasses.dataclass(frozen=True)
class Need:
    """`options` do something where `met` says so; otherwise `but` goes on after "--option does nothing"."""

    options: tuple[str, ...]
    met: Callable
    but: str


# Of the options alone, met(config).
IN_TRAINING = (
    Need(("ra_ops", "ra_magnitude"), lambda c: c.auto_augment == "randaugment", "without --auto-augment randaugment"),
    Need(("momentum",), lambda c: c.optimizer not in ("adamw", "lamb"), "with AdamW and LAMB: --optimizer sgd has one"),
    Need(("lr_step",), lambda c: c.schedule == "step", "without --schedule step"),
    Need(("lr_steps",), lambda c: c.schedule == "multistep", "without --schedule multistep"),
    Need(("lr_gamma",), lambda c: c.schedule in ("step", "multistep"), "without --schedule step or multistep"),
    Need(("lr_power",), lambda c: c.schedule == "poly", "without --schedule poly"),
    Need(("lr_min",), lambda c: c.schedule in ("cosine", "poly", "one_cycle"), "with a --schedule that ends elsewhere"),
    Need(("warmup_start",), lambda c: c.warmup_epochs > 0, "without a warm-up, by --warmup-epochs"),
    Need(("no_decay",), lambda c: c.weight_decay > 0, "without --weight-decay"),
    Need(("mixup", "cutmix"), lambda c: c.batch_size != 1, "with --batch-size 1, where there is nothing to mix with"),
    Need(("drop_path", "layer_decay", "freeze_batch_norm"), lambda c: not head_alone(c), "where only the head learns"),
)
IN_EVALUATION = (Need(("out",), lambda c: False, "with --eval-only, which writes nothing"),)

# Of the whole run, met(run). `but` may name its numbers.
OF_RUNS = (
    Need(("accumulate",), lambda r: r.config.accumulate <= r.steps, "but prevent any update in a run of {steps} steps"),
    Need(("save_every",), lambda r: r.config.save_every <= r.steps, "in a run of {steps} steps"),
    Need(("patience",), lambda r: r.config.patience < r.config.epochs, "in a run of {epochs} epochs"),
    Need(
        ("schedule", "lr_step"),
        lambda r: r.config.schedule != "step" or r.config.lr_step < r.config.epochs,
        "in a run of {epochs} epochs, which ends before the rate's first step after {lr_step:g} (--lr-step)",
    ),
    Need(
        ("schedule", "lr_steps"),
        lambda r: r.config.schedule != "multistep" or r.config.lr_steps[0] < r.config.epochs,
        "in a run of {epochs} epochs, which ends before the rate's first step after {lr_steps[0]:g} (--lr-steps)",
    ),
    Need(("val_fraction",), lambda r: not r.has_split, "with {data}, which has a split of its own"),
    Need(("batch_norm",), lambda r: r.batch_norm, "with {model}, which has no batch normalisation"),
    Need(("head_lr",), lambda r: r.head_learns, "where the head does not learn"),
    Need(("aux_weight",), lambda r: r.auxiliary, "with {model}, which has no auxiliary heads here"),
)


def check_options(config: Config, given: Collection[str]) -> None:
    """Refuses the first option among those that were `given` which would do nothing. Raises UsageError."""
    for need in IN_EVALUATION if config.eval_only else IN_TRAINING:
        for name in need.options:
            if name in given and not _is_off(config, name) and not need.met(config):
                raise UsageError(f"{option(name)} does nothing {need.but}: leave it out")


def check_run(run: Run) -> None:
    """The same of a whole run, for all options that are neither a default nor a recipe's. Raises UsageError."""
    recipe = recipe_options(run.config.recipe, run.config.model)
    for need in OF_RUNS:
        for name in need.options:
            usual = getattr(run.asked, name) in (getattr(Config, name), recipe.get(name))
            if not usual and not _is_off(run.asked, name) and not need.met(run):
                but = need.but.format(steps=run.steps, **vars(run.config))
                raise UsageError(f"{option(name)} does nothing {but}: leave it out")


def _is_off(config: Config, name: str) -> bool:
    """Whether the option asks for nothing."""
    return getattr(config, name) in (0, None, ()) or (name in ("layer_decay", "head_lr") and getattr(config, name) == 1)
