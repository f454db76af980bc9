"""Options that would do nothing are refused before a run starts."""

import dataclasses

import pytest
from flax import nnx

from jaxzoo import UsageError
from tests.train.pixels import Pixels
from train import loop
from train.config import command_line, needs
from train.config.options import Config
from train.data import load
from train.setup.prepare import run_of

pytestmark = pytest.mark.xdist_group("evaluated_alone")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--ra-ops 2", "--ra-ops does nothing without --auto-augment randaugment: leave it out"),
        ("--auto-augment autoaugment --ra-magnitude 5", "--ra-magnitude does nothing without --auto-augment randaug"),
        ("--momentum 0.8", "--momentum does nothing with AdamW and LAMB"),
        ("--optimizer lamb --momentum 0.9", "--momentum does nothing with AdamW and LAMB"),
        ("--lr-step 3", "--lr-step does nothing without --schedule step"),
        ("--lr-steps 3 5", "--lr-steps does nothing without --schedule multistep"),
        ("--schedule poly --lr-gamma 0.5", "--lr-gamma does nothing without --schedule step or multistep"),
        ("--lr-power 2", "--lr-power does nothing without --schedule poly"),
        ("--schedule constant --lr-min 1e-5", "--lr-min does nothing with a --schedule that ends elsewhere"),
        ("--warmup-epochs 0 --warmup-start 0.1", "--warmup-start does nothing without a warm-up"),
        ("--weight-decay 0 --no-decay norms", "--no-decay does nothing without --weight-decay"),
        ("--batch-size 1 --mixup 0.2", "--mixup does nothing with --batch-size 1"),
        ("--batch-size=1 --cutmix=1", "--cutmix does nothing with --batch-size 1"),
        ("--train-only head --layer-decay 0.7", "--layer-decay does nothing where only the head learns"),
        ("--freeze backbone --drop-path 0.1", "--drop-path does nothing where only the head learns"),
        ("--cache-features --freeze-batch-norm", "--freeze-batch-norm does nothing where only the head learns"),
        ("--eval-only --weights x --out run", "--out does nothing with --eval-only, which writes nothing"),
        ("--recipe published --model resnet18 --schedule cosine --lr-step 5", "--lr-step does nothing without"),
    ],
)
def test_options_that_need_others_are_refused_without_them(options, sentence):
    with pytest.raises(UsageError) as error:
        command_line.parse(options.split())
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        "--auto-augment randaugment --ra-ops 3 --ra-magnitude 5",
        "--optimizer sgd --momentum 0.8 --schedule step --lr-step 3 --lr-gamma 0.5",
        "--schedule multistep --lr-steps 3 5 --lr-gamma 0.5",
        "--schedule poly --lr-power 2 --lr-min 1e-5 --warmup-start 0.1",
        "--lr-min 0 --warmup-epochs 0 --warmup-start 0 --layer-decay 1 --train-only head --mixup 0 --batch-size 1",
        "--recipe published --model resnet18 --schedule cosine",
        "--recipe finetune --optimizer adamw --train-only head",
        "--eval-only --weights x --momentum 0.8 --lr-step 3",
    ],
)
def test_options_that_do_something_or_ask_for_nothing_or_come_from_a_recipe_are_taken(options):
    command_line.parse(options.split())


def run(**options):
    """A run of 3 epochs of 10 steps on the digits, or with these."""
    asked = Config(**{"model": "resnet18", "data": "digits", "epochs": 3, "batch_size": 64} | options)
    return needs.Run(asked, asked, load("digits"), steps=30, batch_norm=True, auxiliary=True, head_learns=True)


@pytest.mark.parametrize(
    ("options", "facts", "sentence"),
    [
        ({"accumulate": 31}, {}, "--accumulate does nothing but prevent any update in a run of 30 steps"),
        ({"save_every": 31}, {}, "--save-every does nothing in a run of 30 steps: leave it out"),
        ({"patience": 3}, {}, "--patience does nothing in a run of 3 epochs"),
        ({"schedule": "step"}, {}, "--schedule does nothing in a run of 3 epochs, which ends before the rate's first"),
        ({"schedule": "step", "lr_step": 3}, {}, "first step after 3 (--lr-step)"),
        ({"schedule": "multistep", "lr_steps": (4, 5)}, {}, "first step after 4 (--lr-steps)"),
        ({"val_fraction": 0.5}, {}, "--val-fraction does nothing with digits, which has a split of its own"),
        ({"batch_norm": "local"}, {"batch_norm": False}, "--batch-norm does nothing with resnet18, which has no batch"),
        ({"head_lr": 5.0}, {"head_learns": False}, "--head-lr does nothing where the head does not learn"),
        ({"aux_weight": 0.4}, {"auxiliary": False}, "--aux-weight does nothing with resnet18, which has no auxiliary"),
    ],
)
def test_options_that_a_run_is_too_short_for_or_has_nothing_for_are_refused(options, facts, sentence):
    with pytest.raises(UsageError) as error:
        needs.check_run(dataclasses.replace(run(**options), **facts))
    assert sentence in str(error.value)


def test_options_that_reach_into_a_run_are_taken():
    for options in ({"accumulate": 30, "save_every": 30, "patience": 2}, {"schedule": "step", "lr_step": 2.5}, {}):
        needs.check_run(run(**options))
    nothing = {"batch_norm": False, "auxiliary": False, "head_learns": False}
    needs.check_run(dataclasses.replace(run(aux_weight=0.0, head_lr=1.0), **nothing))
    needs.check_run(run(recipe="published", schedule="step", lr_step=30))  # the recipe's, for another length


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--accumulate 100 --epochs 1", "prevent any update in a run of 22 steps"),
        ("--batch-norm local", "--batch-norm does nothing with mean, which has no batch normalisation"),
    ],
)
def test_nothing_is_written_by_a_run_that_is_refused(mean, tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        loop.run(command_line.parse(["--model", "mean", "--out", str(tmp_path / "run"), *options.split()]))
    assert not (tmp_path / "run").exists()


def test_whether_a_model_has_auxiliary_heads_is_asked_of_the_model():
    for auxiliary in (False, True):
        asked = Config(model="lraspp_mobilenet_v3_large", data="scenes", aux_weight=0.4, epochs=1, batch_size=8)
        model = Pixels(aux_loss=auxiliary, rngs=nnx.Rngs(0))
        assert run_of(asked, asked, load("digits"), model, ()).auxiliary is auxiliary
