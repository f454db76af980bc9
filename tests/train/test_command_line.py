"""What people type: options, their defaults, and sentences about what cannot be."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import jaxzoo
from jaxzoo import UsageError
from jaxzoo.home import expanded
from tests.train.test_data import paint
from train import __main__ as program
from train import loop
from train.config import command_line, options, provenance
from train.config.options import Config
from train.data import load
from train.setup import continuing
from train.tasks import images

ROOT = Path(__file__).parents[2]


def run_on_the_command_line(*options):
    return subprocess.run([sys.executable, "-m", "train", *options], cwd=ROOT, capture_output=True, text=True)


def test_help_explains_every_option():
    result = run_on_the_command_line("--help")
    assert result.returncode == 0 and not result.stderr
    for field in dataclasses.fields(Config):
        assert "--" + field.name.replace("_", "-") in result.stdout
    assert result.stdout.count("(default: ") == len(dataclasses.fields(Config))


@pytest.mark.parametrize("options", [["data", "--help"], ["data", "digits", "-h"], ["recipes", "--help"]])
def test_every_command_explains_itself(options, capsys):
    with pytest.raises(SystemExit) as end:
        program.main(options)
    said = capsys.readouterr().out
    assert end.value.code == 0 and said.startswith(f"usage: python -m train {options[0]}")
    assert ("--image-size" in said) == (options[0] == "data")


def test_bad_input_is_one_sentence_and_exit_code_2():
    result = run_on_the_command_line("--model", "swin_ti")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: unknown model 'swin_ti'; nearest: swin_t")


def test_nothing_given_means_the_defaults():
    assert command_line.parse([]) == Config()


def test_there_are_as_many_workers_as_cores_that_a_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 96)
    assert options.cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    assert options.cores() == 96


def test_options_are_typed():
    parsed = command_line.parse(
        ["--eval-only", "--weights=w.pth", "--flip=no", "--lr=1e-2", "--model-args", "dropout=0.5", "norm=true"]
    )
    assert (parsed.eval_only, parsed.flip, parsed.lr, parsed.image_size) == (True, "no", 0.01, None)
    assert options.model_arguments(parsed) == {"dropout": 0.5, "norm": True}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--epochs 0", "--epochs is 0; it must be a whole number of at least 1"),
        ("--batch-size -3", "--batch-size is -3"),
        ("--lr -1", "--lr is -1.0; it must be a number above 0"),
        ("--lr nan", "--lr is nan"),
        ("--lr inf", "--lr is inf"),
        ("--weight-decay -1", "--weight-decay is -1.0"),
        ("--momentum 1.5", "--momentum is 1.5; it must be between 0 and 1"),
        ("--label-smoothing -0.1", "--label-smoothing is -0.1"),
        ("--val-fraction 0", "--val-fraction is 0.0, which leaves no image"),
        ("--crop-area 0", "--crop-area is 0.0, which leaves no image"),
        ("--seed -1", "--seed is -1"),
        ("--seed 99999999999", "--seed is 99999999999"),
        ("--keep 0", "--keep is 0"),
        ("--eval-only", "--eval-only needs weights"),
        ("--model-args dropout", "--model-args takes NAME=VALUE"),
        ("--model-args num_classes=3", "the data decides"),
        ("--resume nowhere", "nowhere is no run to continue"),
        ("--accumulate 0", "--accumulate is 0; it must be a whole number of at least 1"),
        ("--schedule multistep", "takes the epochs after which the rate decays, such as --lr-steps 16 22"),
        ("--schedule multistep --lr-steps 22 16", "--lr-steps 16 22, the first first"),
        ("--schedule multistep --lr-steps 0 16", "--lr-steps 16 22, the first first"),
        ("--ra-magnitude 31", "--ra-magnitude is 31; the strongest is 30"),
        ("--color-jitter 0 0 0 0.6", "hue up to 0.5"),
        ("--ema 1", "--ema is 1.0, which leaves nothing to learn from"),
        ("--drop-path 1", "--drop-path is 1.0, which leaves nothing"),
        ("--layer-decay 0", "--layer-decay is 0.0, which leaves nothing"),
        ("--freeze backbone --train-only head", "--freeze and --train-only say the same thing in two ways"),
        ("--coordinator localhost:1234", "need --coordinator, --num-processes and --process-id"),
        ("--recipe publish", "there is no recipe 'publish'; the recipes are: published, "),
        ("--recipe published --model lenet5", "there is no published recipe for lenet5"),
    ],
)
def test_impossible_values_are_refused(options, sentence):
    with pytest.raises(UsageError) as error:
        command_line.parse(options.split())
    assert sentence in str(error.value)


@pytest.mark.parametrize("options", ["--lr fast", "--bogus", "--optimizer lion", "--epochs 1.5"])
def test_values_of_another_type_are_refused(options, capsys):
    with pytest.raises(SystemExit) as error:
        command_line.parse(options.split())
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"data": "digitz"}, "unknown data 'digitz'"),
        ({"data": "folder:/nowhere"}, "there is no folder /nowhere"),
        ({"model": "resnet_18"}, "unknown model 'resnet_18'; nearest: resnet18"),
        ({"batch_size": 1439}, "--batch-size 1439 is more than the 1438 training images"),
        ({"devices": 1000}, "--devices is 1000, but there"),
        ({"model_args": ("droput=0.1",)}, "takes no argument 'droput'"),
        ({"weights": "nowhere.pth"}, "nowhere.pth"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_is_written(tmp_path, options, sentence):
    with pytest.raises(UsageError) as error:
        loop.run(Config(**{"model": "resnet18", "out": str(tmp_path / "run")} | options))
    assert sentence in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match=r"exists already; give another --out, or continue it with --resume"):
        loop.run(Config(out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_run_has_a_folder_of_its_own_also_when_two_begin_in_the_same_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance.time, "strftime", lambda form: "20260101-000000")
    folders = [provenance.make_folder(Config(model="vgg11", data="folder:/my pets/")) for _ in range(3)]
    assert [str(folder) for folder in folders] == [
        f"runs/vgg11-my_pets-20260101-000000{end}" for end in ("", "-2", "-3")
    ]
    assert all(folder.is_dir() for folder in folders)
    assert provenance.make_folder(Config(out="a/b")) == Path("a/b")
    with pytest.raises(UsageError, match="cannot make the folder a/b: File exists; give another --out"):
        provenance.make_folder(Config(out="a/b"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make the folder file/run: Not a directory; give another --out"):
        provenance.make_folder(Config(out="file/run"))


def test_a_tilde_means_the_home_folder_wherever_a_path_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    parsed = command_line.parse(["--out=~/run", "--weights", "~/a.pth", "--data=folder:~/photos"])
    assert (parsed.out, parsed.weights) == (f"{tmp_path}/run", f"{tmp_path}/a.pth")
    assert parsed.data == f"folder:{tmp_path}/photos"
    assert expanded(["~/a b.png", "--model-args", "x=~y", "a~b"]) == [
        f"{tmp_path}/a b.png",
        "--model-args",
        "x=~y",
        "a~b",
    ]


def test_paths_mean_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("old", "photos", "mnist"):
        (tmp_path / name).mkdir()
    found = provenance.located(Config(data="folder:photos", weights="old#ema", weights_backbone="IMAGENET1K_V1"))
    assert found.data == f"folder:{tmp_path}/photos"
    assert (found.weights, found.weights_backbone) == (f"{tmp_path}/old#ema", "IMAGENET1K_V1")
    assert provenance.located(Config(data="tfds:mnist:train")).data == "tfds:mnist:train"
    assert provenance.located(Config(data="digits")).data == "digits"


# Other commands


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    return program.main()


def test_recipes_are_listed(monkeypatch, capsys):
    command(monkeypatch, "recipes")
    out = capsys.readouterr().out
    assert "finetune" in out and "adamw" in out and "resnet" in out


def test_data_is_counted_and_drawn(monkeypatch, capsys, tmp_path):
    command(monkeypatch, "data", "digits", "--model", "resnet18", "--out", str(tmp_path / "digits.png"))
    assert "1438" in capsys.readouterr().out.replace(",", "")
    assert (tmp_path / "digits.png").is_file()


def test_data_has_to_be_named(monkeypatch, capsys):
    for arguments in ((), ("--model", "resnet18")):
        with pytest.raises(SystemExit) as error:
            command(monkeypatch, "data", *arguments)
        assert error.value.code == 2
        assert "name the data: python -m train data folder:PATH" in capsys.readouterr().err


# Continuing


@pytest.fixture
def run(tmp_path):
    """The folder of a run that has only just begun."""
    provenance.write(Config(model="resnet18", lr=0.5, model_args=("zero_init_residual=true",)), tmp_path)
    return tmp_path


def test_a_continued_run_has_the_options_it_was_started_with(run):
    parsed = command_line.parse(["--resume", str(run)])
    assert parsed == Config(
        model="resnet18", lr=0.5, model_args=("zero_init_residual=true",), resume=str(run), workers=parsed.workers
    )
    assert command_line.parse([f"--resume={run}", "--epochs", "50", "--workers", "3"]).epochs == 50


@pytest.mark.parametrize("options", ["--model swin_t", "--lr 0.4", "--seed 1", "--weights a.pth", "--out elsewhere"])
def test_a_continued_run_cannot_change_its_numbers(run, options):
    with pytest.raises(UsageError, match="was started with --"):
        command_line.parse(["--resume", str(run), *options.split()])


def test_a_damaged_config_is_named(run):
    for text in ("lr: [", "lr: 1\nbogus: 2", "- 1", ""):
        (run / "config.yaml").write_text(text)
        with pytest.raises(UsageError, match=r"config.yaml is not as `python -m train` wrote it"):
            command_line.parse(["--resume", str(run)])


def test_another_models_checkpoints_are_refused(tmp_path):
    theirs = {"model": "vgg11", "classes": ["a", "b"], "train": {"images": 9}}
    ours = theirs | {"model": "vgg13"}
    with pytest.raises(UsageError, match=r"holds checkpoints of vgg11, but its config.yaml says vgg13"):
        continuing.check_manifest(theirs, ours, tmp_path)
    with pytest.raises(UsageError, match="b gone; c new"):
        continuing.check_classes(["a", "b"], ["a", "c"], tmp_path)


def test_what_makes_a_continued_run_another_one_is_said(tmp_path, capsys):
    numbers = {"images": 9, "names": "a1", "batch_norm_parts": 4}
    theirs = {"model": "vgg11", "classes": ["a", "b"], "train": numbers}
    said = {
        "had 9 training images and has 8 now": {"images": 8, "names": "b2"},
        "the data has other images now": {"names": "b2"},
        "--batch-norm local had 4 devices to share a batch among, and has 2 now": {"batch_norm_parts": 2},
        "": {},
    }
    for sentence, change in said.items():
        continuing.check_manifest(theirs, theirs | {"train": numbers | change}, tmp_path)
        out = capsys.readouterr().out
        assert sentence in out and out.count("this continues, but not as if never stopped") == bool(change)
    continuing.check_manifest(theirs | {"train": {"images": 9}}, theirs, tmp_path)  # written before there was more
    assert not capsys.readouterr().out


def test_each_continuation_adds_what_it_was_made_with_and_says_what_changed(run, monkeypatch):
    made = provenance.provenance()
    assert provenance.made_with(run) == {0: made} and provenance.changed_since(run) == []
    for step, version in ((10, "0.9"), (20, "0.8"), (15, "0.7")):
        monkeypatch.setattr(provenance, "provenance", lambda version=version: made | {"jax": version})
        assert provenance.changed_since(run)[0].startswith(f"jax {version} instead of ")
        provenance.write(provenance.read(run), run, step)
    assert [(step, about["jax"]) for step, about in provenance.made_with(run).items()] == [
        (0, made["jax"]),
        (10, "0.9"),
        (15, "0.7"),
    ]
    assert provenance.read(run).lr == 0.5


# What follows from the configuration


def test_the_eval_transform_is_the_published_one_in_proportion(tmp_path):
    for name in ("cat", "dog"):
        for i in range(2):
            paint(tmp_path / name / f"{i}.png")
    data = load(f"folder:{tmp_path}")
    native = images.preparation(Config(model="resnet50"), data, None)
    assert native == jaxzoo.card("resnet50").preprocess
    half = images.preparation(Config(model="resnet50", image_size=112), data, None)
    assert (half.crop, half.resize) == (112, round(112 * native.resize / native.crop))
    digits = images.preparation(Config(model="resnet50"), load("digits"), None)
    assert (digits.crop, digits.resize) == (32, 32)


def test_models_that_must_know_the_image_size_are_told():
    data = load("digits")
    known = {
        name: images.model_arguments(Config(model=name), data, images.preparation(Config(model=name), data, None), None)
        for name in ("vit_b_16", "resnet18")
    }
    assert known == {"vit_b_16": {"image_size": 32, "num_classes": 10}, "resnet18": {"num_classes": 10}}


def test_config_yaml_can_be_read_by_anybody(run):
    assert yaml.safe_load((run / "config.yaml").read_text())["model_args"] == ["zero_init_residual=true"]


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        ("deeplabv3_resnet50", "--mixup 0.2", "--mixup means nothing to segmentation"),
        ("deeplabv3_resnet50", "--cache-features", "--cache-features means nothing to segmentation"),
        ("deeplabv3_resnet50", "--recipe finetune", "means nothing to segmentation: take another recipe"),
        ("resnet18", "--eval-flip", "--eval-flip means nothing to classification"),
        ("resnet18", "--scale 0.5 2", "--scale means nothing to classification"),
        (
            "resnet18",
            "--data scenes",
            "unknown data 'scenes' for classification; it is digits, folder:PATH, .* or tfds",
        ),
        (
            "fcn_resnet50",
            "--data folder:x",
            "unknown data 'folder:x' for segmentation; it is scenes, voc:PATH, .* or tf",
        ),
        ("resnet18", "--output-stride 8", "--output-stride means nothing to classification"),
        ("lraspp_mobilenet_v3_large", "--output-stride 8", "lraspp_mobilenet_v3_large has only one output stride"),
        ("fcn_resnet50", "--output-stride 4", "output_stride is 4; it must be one of: 8, 16, 32"),
        ("resnet18", "--weights-backbone x.pth", "no part of resnet18 is another model"),
        ("fcn_resnet50", "--weights-backbone x.pth", "there is no file x.pth"),
    ],
)
def test_what_means_nothing_to_a_task_or_a_model_is_refused(model, options, named, tmp_path):
    config = command_line.parse(["--model", model, "--out", str(tmp_path / "run"), *options.split()])
    with pytest.raises(UsageError, match=named):
        loop.run(config)
    assert not (tmp_path / "run").exists()
