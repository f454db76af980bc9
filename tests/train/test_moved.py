"""Runs that are continued from another folder, or after their images have moved."""

import pytest

from convert import store
from jaxzoo import UsageError
from tests.train.test_data import paint
from train import loop
from train.config import command_line
from train.setup.continuing import check_manifest

pytestmark = [pytest.mark.usefixtures("mean", "no_pictures"), pytest.mark.xdist_group("evaluated_alone")]
OPTIONS = [
    "--model",
    "mean",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--lr",
    "0.1",
    "--schedule",
    "constant",
    "--warmup-epochs",
    "0",
]


def pets(root):
    for number, name in enumerate(("cat", "dog")):
        for i in range(6):
            paint(root / name / f"{i}.png", color=(200 * number, 30 * i, 90))
    return root


def start(*options):
    loop.run(command_line.parse([*OPTIONS, *map(str, options)]))


def resume(run, *options):
    loop.run(command_line.parse(["--resume", str(run), *map(str, options)]))


def parameters(run, step):
    return store.load(run / "checkpoints" / str(step), prefix="model/")[0]


def test_a_run_goes_on_from_another_folder_and_where_its_images_are_now(tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    photos = pets(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    start("--data", "folder:photos", "--epochs", 3, "--out", "whole")
    start("--data", "folder:photos", "--epochs", 1, "--out", "run")
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume(run, "--epochs", 2)

    moved = photos.rename(tmp_path / "elsewhere" / "pictures")
    with pytest.raises(UsageError, match=r"there is no folder .*/photos; if the images have moved, --data says where"):
        resume(run, "--epochs", 3)
    capsys.readouterr()
    resume(run, "--epochs", 3, "--data", "folder:pictures")
    assert "not as if never stopped" not in capsys.readouterr().out
    ours, theirs = parameters(run, 6), parameters(tmp_path / "whole", 6)
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert f"folder:{moved}" in (run / "config.yaml").read_text()

    (moved / "cat" / "0.png").rename(moved / "cat" / "new.png")
    resume(run, "--epochs", 4)
    assert "the data has other images now: this continues, but not as if never stopped" in capsys.readouterr().out


def test_other_images_are_no_moved_ones(tmp_path):
    run = tmp_path / "run"
    start("--data", f"folder:{pets(tmp_path / 'photos')}", "--epochs", 1, "--out", run)
    paint(pets(tmp_path / "others") / "cat" / "more.png")
    for change in (lambda: None, lambda: (tmp_path / "others" / "cat" / "5.png").unlink()):
        change()
        with pytest.raises(UsageError, match=r"cannot be continued with folder:.*/others.*--weights .*run"):
            resume(run, "--epochs", 2, "--data", f"folder:{tmp_path / 'others'}")
    (tmp_path / "others" / "dog").rename(tmp_path / "others" / "cow")
    with pytest.raises(UsageError, match="other classes than its data has now: dog gone; cow new"):
        resume(run, "--epochs", 2, "--data", f"folder:{tmp_path / 'others'}")


def test_a_run_that_cannot_be_written_can_only_be_evaluated(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    start("--data", f"folder:{pets(tmp_path / 'photos')}", "--epochs", 1, "--out", run)
    monkeypatch.setattr(loop.os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(
        UsageError, match=r"run cannot be written, .* with --eval-only, or begin a new one with --weights"
    ):
        resume(run, "--epochs", 2)
    capsys.readouterr()
    resume(run, "--eval-only")
    assert "held out: loss" in capsys.readouterr().out


def test_a_run_without_a_list_of_names_is_compared_by_their_number():
    old, now = ({"model": "m", "train": {"images": 9} | names} for names in ({}, {"names": "digest"}))
    check_manifest(old, now, "run", "folder:new")
    with pytest.raises(UsageError, match="had 8 training images and has 9 now"):
        check_manifest(old | {"train": {"images": 8}}, now, "run", "folder:new")
