"""Every option of `python -m train` works together with --resume.

Each group of options makes a run that nobody disturbs, and one that is killed after a random step and continued. Both
have to be the same, to the last bit.
"""

import dataclasses
import random
import re
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.boxes import paint
from tests.train.launch import train
from tests.train.same import assert_same_run, rows, steps
from train.config.options import Config

# Four steps an epoch, checkpoints after 3, 4, 6 and 8; the newest two are kept.
BASIS = "--model blocks --data digits --epochs 2 --batch-size 358 --lr 0.01 --save-every 3"
STEPS = 8

GROUPS = {
    "optimization": "--optimizer sgd_nesterov --momentum 0.8 --weight-decay 1e-3 --no-decay norms tables --clip-norm 1 "
    "--schedule step --lr-step 0.5 --lr-gamma 0.3 --warmup-epochs 0.5 --warmup-start 0.1 --accumulate 3 "
    "--label-smoothing 0.05 --coordinator localhost:PORT --num-processes 1 --process-id 0",
    "averages": "--ema 0.8 --patience 1 --optimizer lamb --layer-decay 0.8 --schedule poly --lr-power 2 --lr-min 1e-4 "
    "--dropout 0.3 --drop-path 0.2 --tensorboard --log-every 1 --keep 3",
    "photographs": "--data folder:PHOTOS --batch-size 8 --val-fraction 0.3 --image-size 32 --train-size 24 --flip yes "
    "--crop-area 0.5 --color-jitter 0.2 0.2 0.2 0.1 --auto-augment randaugment --ra-ops 1 --ra-magnitude 5 "
    "--random-erase 0.5 --mixup 0.2 --cutmix 1 --repeats 2 --workers 3 --strict-data",
    "stages": "--progressive 16:32:2 --shift 1 --seed 3 --model-args width=4 --on-nan skip",
    "fine-tuning": "--weights RUN --recipe finetune --train-only fc,norm --distributed auto",
    "features": "--weights RUN --cache-features --schedule multistep --lr-steps 0.5 1.5",
    "segmentation": "--model pixels --data pairs:MASKS --batch-size 8 --image-size 32 --weights-backbone RUN "
    "--head-lr 5 --freeze-batch-norm --scale 0.8 1.2 --output-stride 2 --aux-weight 0.3 --eval-scales 0.5 1 "
    "--eval-flip --eval-batch-size 3",
    "detection": "--model boxes --data list:BOXES --batch-size 8 --image-size 48 --weights-backbone RUN "
    "--data-augmentation ssd --trainable-backbone-layers 1",
    "detection on devices": "--model boxes --data list:BOXES --batch-size 8 --image-size 48 --devices 2 --ema 0.8 "
    "--precision bfloat16 --accumulate 2 --clip-norm 1 --on-nan skip --eval-batch-size 4",
    "devices": "--devices 2 --batch-norm local --shard-params --remat --precision bfloat16 --model-args width=64 "
    "--freeze stem,blocks.0",
}
ENVIRONMENT = {
    "stages": {"POISON": "2"},
    "devices": {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    "detection on devices": {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "POISON": "2"},
    "fine-tuning": {  # as Slurm would start a single process
        **{"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "1"},
        **{"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
    },
}
# What is given anew when a run is continued, and does not change it.
ANEW = {
    "photographs": "--workers 1",
    "averages": "--keep 3 --save-every 3",
    "optimization": "--coordinator localhost:PORT --num-processes 1 --process-id 0",
    "fine-tuning": "--distributed auto",
}
ELSEWHERE = {"eval_only": "test_a_killed_run_can_be_evaluated", "resume": "all of them", "out": "all of them"}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_places(tmp_path_factory.mktemp("places"))


def make_places(folder: Path) -> dict[str, Path]:
    """What stands for names in the options: a run to take weights from, a folder of images, one with masks,
    and a list of boxes."""
    rng = np.random.default_rng(0)
    for name, color in (("cat", (200, 60, 30)), ("dog", (30, 90, 200))):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(23):
            noise = rng.normal(color, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / "photos" / name / f"{i}.png")
    for part in ("images", "masks"):
        (folder / "masked" / part).mkdir(parents=True)
    for i in range(40):
        mask = np.zeros((36 + i, 44), np.uint8)
        mask[i % 9 : 20, 5 * (i % 4) : 30] = 1 + i % 2
        noise = rng.normal(60 + 70 * mask[..., None], 30, (*mask.shape, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noise).save(folder / "masked" / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masked" / "masks" / f"{i}.png")
    boxes = paint(folder / "boxes", 40)
    train(*BASIS.split(), "--out", folder / "run", PLAIN=1)
    return {"RUN": folder / "run", "PHOTOS": folder / "photos", "MASKS": folder / "masked", "BOXES": boxes}


def words(text: str, places: dict) -> list[str]:
    """The options as they are given; every program has a port of its own."""
    with socket.create_server(("localhost", 0)) as free:
        places = places | {"PORT": free.getsockname()[1]}
    for name, place in places.items():
        text = re.sub(rf"\b{name}\b", str(place), text)
    return text.split()


@pytest.mark.parametrize("name", GROUPS)
def test_a_killed_and_continued_run_equals_one_that_was_not(name, places, tmp_path):
    options, environment = f"{BASIS} {GROUPS[name]}", {"PLAIN": "1"} | ENVIRONMENT.get(name, {})
    died = random.Random(name).randint(1, STEPS - 1)
    train(*words(options, places), "--out", tmp_path / "whole", **environment)
    train(*words(options, places), "--out", tmp_path / "killed", code=-9, DIE_AT=died, **environment)
    train(*words(ANEW.get(name, ""), places), "--resume", tmp_path / "killed", **environment)
    assert steps(tmp_path / "whole")[-1] == STEPS
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_killed_run_can_be_evaluated(places, tmp_path):
    train(*BASIS.split(), "--ema", "0.5", "--out", tmp_path / "run", code=-9, DIE_AT=6, PLAIN=1)
    first = rows(tmp_path / "run")[0]
    for later in set(steps(tmp_path / "run")) - {4}:  # the one at the end of the first epoch is left
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(later))
    said = train("--eval-only", "--resume", tmp_path / "run")
    assert f"held out: loss {float(first['val_loss']):.4f}, accuracy {float(first['val_accuracy']):.2%}" in said
    assert f"its average: loss {float(first['ema_loss']):.4f}, accuracy {float(first['ema_accuracy']):.2%}" in said


def test_a_part_that_started_from_elsewhere_does_not_need_that_again(places, tmp_path):
    shutil.copytree(places["RUN"], tmp_path / "backbone")
    options = "--model pixels --data pairs:MASKS --batch-size 8 --image-size 32 --epochs 1"
    given = ("--weights-backbone", tmp_path / "backbone", "--out", tmp_path / "run")
    train(*words(options, places), *given, "--save-every", 1, code=-9, DIE_AT=3, PLAIN=1)
    shutil.rmtree(tmp_path / "backbone")
    assert "done: held-out miou" in train("--resume", tmp_path / "run", PLAIN=1)


def test_every_option_is_in_one_of_these_groups():
    used = set(re.findall(r"--([a-z-]+)", " ".join([BASIS, *GROUPS.values()])))
    assert {name.replace("-", "_") for name in used} | ELSEWHERE.keys() == {f.name for f in dataclasses.fields(Config)}
