"""Recipes are valid options, name their source, and are there for the models that torchvision trained."""

import dataclasses
import io
import re
import typing

import pytest
import rich.console
import torchvision

import jaxzoo
from jaxzoo import UsageError
from train.config import command_line, recipes
from train.config.check import check
from train.config.options import Config
from train.optim import optimizers
from train.setup.prepare import check_means_something
from train.tasks import of_model

TORCHVISIONS = [
    *torchvision.models.list_models(module=torchvision.models),
    *torchvision.models.list_models(module=torchvision.models.segmentation),
    *torchvision.models.list_models(module=torchvision.models.detection),
]


@pytest.mark.parametrize("name", recipes.recipes())
def test_a_recipe_has_options_of_the_trainer_with_possible_values(name):
    recipe = recipes.recipes()[name]
    types = typing.get_type_hints(Config)
    for values in (recipe.options, *recipe.but.values()):
        for option, value in values.items():
            kind = types[option]
            if typing.get_origin(kind) is typing.Literal:
                assert value in typing.get_args(kind)
            elif option == "no_decay":
                assert isinstance(value, tuple) and set(value) <= {"norms", "biases", "tables"}
            elif option in ("scale", "lr_steps"):
                assert len(value) == 2 and all(type(number) is float for number in value)
            elif kind in (int, int | None):
                assert type(value) is int, option
            else:
                assert type(value) in (int, float), option
        check(Config(**{**recipe.options, **values}))
    assert recipe.sources and recipe.options.keys() >= {"lr", "batch_size", "epochs", "schedule", "weight_decay"}


def test_a_recipes_models_are_the_zoos_and_their_weights_name_its_source():
    for name, recipe in recipes.recipes().items():
        for weights, models in recipe.models.items():
            for model in models:
                assert weights in jaxzoo.card(model).weights, (name, model)
                if model not in TORCHVISIONS:  # then the paper is the source
                    assert jaxzoo.card(model).paper.endswith(recipe.sources[0]), (name, model)
                    continue
                meta = torchvision.models.get_model_weights(model)[weights].meta
                assert meta["recipe"] in recipe.sources, (name, model)


def test_a_recipe_has_nothing_that_its_models_do_not_know():
    for name, recipe in recipes.recipes().items():
        for model in {model for models in recipe.models.values() for model in models}:
            config = Config(model=model, recipe=name, **recipes.options(name, model))
            check_means_something(config, of_model(model).INAPPLICABLE_OPTIONS)


def test_every_model_of_torchvisions_has_a_recipe_or_a_reason():
    without = {model for models in recipes._file()["without"].values() for model in models}
    found = {model for model in TORCHVISIONS if model not in without and recipes.published(model)}
    assert found | without == set(TORCHVISIONS)
    assert not found & without
    assert len(found) == 77


def test_the_newest_weights_decide_what_is_published():
    assert recipes.published("resnet18") == "resnet"
    assert recipes.published("resnet50") == "new_repeated"
    assert recipes.published("mobilenet_v3_large") == "mobilenet_v3"


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("googlenet", "ported"),
        ("vit_h_14", "SWAG"),
        ("densenet121", "does not say"),
        ("mobilevit_s", "only torchvision's models"),
    ],
)
def test_a_model_without_a_recipe_says_why_and_what_there_is(model, reason):
    with pytest.raises(UsageError, match=rf"no published recipe for {model}: .*{reason}.*finetune"):
        recipes.options("published", model)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(UsageError, match=r"no recipe 'convnxt'; nearest: convnext; the recipes are: published, resnet"):
        recipes.options("convnxt", "convnext_tiny")


def test_no_recipe_gives_nothing():
    assert recipes.options(None, "resnet50") == {}


def test_single_models_differ():
    assert recipes.options("published", "resnext101_32x8d")["lr"] == 0.5
    assert recipes.options("resnext", "resnext101_32x8d") | {"lr": 0.1, "batch_size": 256} == recipes.options(
        "resnext", "resnext50_32x4d"
    )


def test_a_recipe_may_be_taken_for_another_model():
    assert recipes.options("swin", "mobilevit_s") == recipes.options("published", "swin_t")


@pytest.mark.parametrize(
    ("model", "images", "updates"),
    [
        ("fasterrcnn_resnet50_fpn", 117_266, 1000),
        ("maskrcnn_resnet50_fpn_v2", 117_266, 1000),
        ("ssd300_vgg16", 117_266, 1000),
        ("ssdlite320_mobilenet_v3_large", 117_266, 609),
        ("keypointrcnn_resnet50_fpn", 117_266 * 26 / 46, 1000),
    ],
)
def test_detectors_warm_up_in_a_thousand_updates_of_coco_or_one_epoch(model, images, updates):
    config = Config(model=model, **recipes.options("published", model))
    assert optimizers.updates(config, int(images / config.batch_size))[1] == updates


def test_averages_look_back_as_far_as_torchvisions():
    """torchvision: 0.99998, every 32 steps, adapted to the number of images in the run."""
    averaging = [recipe.options for recipe in recipes.recipes().values() if recipe.options["ema"]]
    assert len(averaging) > 5
    for own in averaging:
        every_32_steps = 1 - (1 - 0.99998) * own["batch_size"] * 32 / own["epochs"]
        assert own["ema"] == pytest.approx(every_32_steps ** (1 / 32), abs=1e-8)


def following(recipe: str, model: str, *given: str, **values) -> Config:
    own = recipes.options(recipe, model)
    return recipes.adapted(Config(**{"model": model, "recipe": recipe, **own, **values}), given)


def test_the_learning_rate_follows_the_batch_size():
    assert following("published", "resnet18", batch_size=64).lr == 0.025
    assert following("published", "resnet18", batch_size=64, accumulate=4).lr == 0.1
    assert following("published", "swin_t", batch_size=512).lr_min == 5e-6
    assert following("published", "resnet18", "lr", batch_size=64, lr=0.3).lr == 0.3
    assert following("published", "resnet18") == Config(
        model="resnet18", recipe="published", **recipes.options("resnet", "resnet18")
    )
    assert recipes.adapted(Config(), ()) == Config()


def test_an_average_follows_the_length_of_the_run():
    own = recipes.options("published", "resnet50")["ema"]
    assert 1 - following("published", "resnet50", epochs=60).ema == pytest.approx(10 * (1 - own))
    assert 1 - following("published", "resnet50", batch_size=256).ema == pytest.approx((1 - own) / 4)
    assert following("published", "resnet50", batch_size=256, accumulate=4).ema == own
    assert following("published", "resnet50", epochs=1, batch_size=2**16).ema >= 0
    assert following("published", "resnet18", epochs=1).ema == 0


def test_a_run_says_which_rate_it_takes():
    assert recipes.summary(Config()) == ""
    assert recipes.summary(following("published", "resnet18")) == (
        "recipe resnet: lr 0.1 for 256 images per update; 90 epochs"
    )
    assert recipes.summary(following("published", "mobilenet_v3_large", batch_size=64)) == (
        "recipe mobilenet_v3: lr 0.064 for 1024 images per update, here 0.004 for 64; 600 epochs; "
        "unlike here: the weights are the mean of the last three checkpoints that had become better"
    )


def test_all_recipes_are_listed():
    console = rich.console.Console(width=200, file=io.StringIO())
    console.print(recipes.listing())
    text = console.file.getvalue()
    assert all(name in text for name in recipes.recipes())
    assert re.search(r"mobilenet_v3 .*rmsprop .*0\.064 .*1024 .*600 .*step", text)


def test_a_recipe_is_the_default_of_the_command_line():
    parsed = command_line.parse(["--model", "resnet18", "--recipe", "published", "--epochs", "3"])
    expected = recipes.options("resnet", "resnet18") | {"epochs": 3}
    assert {name: value for name, value in dataclasses.asdict(parsed).items() if name in expected} == expected
