"""What options are when nobody gives them."""

import pytest
from PIL import Image

from convert.shapes import abstract
from jaxzoo import UsageError
from train.config.check import check
from train.config.options import Config
from train.data import Data, load, picture_side
from train.setup.defaults import filled
from train.tasks import classification, images, segmentation


class Pictures:
    """So many pictures of one size, some of which cannot be read."""

    def __init__(self, count, side, broken=()):
        self.count, self.side, self.broken = count, side, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise UsageError("cannot be read")
        return Image.new("RGB", (self.side + 10, self.side)), 0


def photographs(count, side=500, classes=("cat", "dog")):
    return Data(Pictures(count, side), Pictures(count // 4, side), list(classes))


def chosen(model="resnet18", images=5_000, data=None, **options):
    """The options of a run on so many photographs, or on other data."""
    data = data or photographs(images)
    return filled(Config(**{"model": model, "data": "folder:photos"} | options), data, abstract(model, num_classes=2))


def test_what_is_given_stays():
    given = {"epochs": 3, "lr": 0.5, "clip_norm": 2.0, "crop_area": 0.5, "shift": 1, "flip": "no"}
    assert vars(chosen("vgg11", **given)).items() >= given.items()


@pytest.mark.parametrize(
    ("optimizer", "rate"), [("adamw", 1e-3), ("lamb", 1e-3), ("sgd", 0.05), ("sgd_nesterov", 0.05), ("rmsprop", 0.01)]
)
def test_every_optimizer_has_its_rate(optimizer, rate):
    assert chosen(optimizer=optimizer).lr == rate


@pytest.mark.parametrize("model", ["alexnet", "vgg11", "squeezenet1_1"])
def test_networks_without_normalisation_learn_slower_and_are_clipped(model):
    assert (chosen(model).lr, chosen(model).clip_norm) == (3.3e-4, 1.0)
    assert (chosen("vgg11_bn").lr, chosen("vgg11_bn").clip_norm) == (1e-3, 0.0)


def test_a_tiny_network_learns_faster_and_longer():
    digits = chosen("lenet5", data=load("digits"), **{"epochs": None})
    assert (digits.lr, digits.clip_norm) == (3e-3, 0.0)
    assert filled(Config(model="lenet5"), load("digits"), abstract("lenet5", num_classes=10)).epochs == 30


def test_pretrained_weights_are_moved_less_and_a_head_alone_as_much_as_ever():
    assert (chosen(weights="w.pth").lr, chosen(weights="w.pth").epochs) == (3e-4, 10)
    assert (chosen("swin_t", weights="w.pth").lr, chosen("vgg11", weights="w.pth").lr) == (1e-4, 3.3e-5)
    for alone in ({"cache_features": True}, {"train_only": ("head",)}, {"freeze": ("backbone",)}):
        assert (chosen(weights="w.pth", **alone).lr, chosen(weights="w.pth", **alone).epochs) == (1e-3, 10)


def test_many_images_are_cropped_harder_than_few():
    assert [chosen(images=count).crop_area for count in (9_999, 10_000)] == [0.35, 0.08]
    assert (chosen().flip, chosen().shift) == ("yes", 0)


def augmented(side=28, classes=("cat", "dog"), image=32, **options):
    """What is chosen for pictures of so many pixels, and what is said of it."""
    asked, data = Config(model="lenet5", data="folder:photos", **options), photographs(4_000, side, classes)
    found = filled(asked, data, abstract("lenet5", num_classes=2), image)
    return (found.crop_area, found.shift, found.flip), classification.augmentation_line(asked, found, data, image)


def test_small_pictures_are_moved_and_mirrored_and_not_cropped_and_that_is_said():
    chosen, said = augmented()
    assert chosen == (1.0, 2, "yes")
    assert said == "augmentation: moved by up to 2 pixels, mirrored at random (for pictures of 28 pixels, under 64)"
    assert augmented(63, image=224)[0] == (1.0, 14, "yes")
    chosen, said = augmented(64)
    assert chosen == (0.35, 0, "yes")
    assert said.endswith("crops of at least 35% of the area, mirrored at random (for fewer than 10,000 images)")


@pytest.mark.parametrize("classes", ["0123456789", "aBcé", ["00", "17", "3"], ["Zero", "one", "nine"]])
def test_small_pictures_of_characters_are_not_mirrored(classes):
    chosen, said = augmented(classes=classes)
    assert chosen == (1.0, 2, "no")
    assert f"not mirrored (for pictures of 28 pixels, under 64, and classes such as {classes[0]} and" in said
    assert augmented(side=100, classes=classes)[0] == (0.35, 0, "yes")


def test_augmentation_that_is_asked_for_is_said_without_a_reason():
    chosen, said = augmented(crop_area=0.5, shift=1, flip="no", mixup=0.2, color_jitter=(0.1, 0.2, 0.0, 0.0))
    assert chosen == (0.5, 1, "no")
    assert said == (
        "augmentation: crops of at least 50% of the area, moved by up to 1 pixels, not mirrored, "
        "--color-jitter 0.1 0.2 0 0, --mixup 0.2"
    )


def test_pictures_that_cannot_be_read_say_nothing_about_the_size_of_the_others():
    assert picture_side(Pictures(9, 28, broken=(0, 8))) == 28
    assert picture_side(Pictures(2, 28, broken=(0, 1))) is None


def test_segmentation_says_what_it_does_too():
    asked, data = Config(model="lraspp_mobilenet_v3_large", data="scenes"), load("scenes", "segmentation")
    said = segmentation.augmentation_line(asked, filled(asked, data, abstract(asked.model, num_classes=11)), data, 128)
    assert said == "augmentation: scaled by 0.8 to 1.25, cropped, not mirrored"


def test_digits_are_not_mirrored():
    digits = filled(Config(), load("digits"), abstract("resnet18", num_classes=10))
    assert (digits.flip, digits.shift, digits.crop_area, digits.epochs) == ("no", 2, 1.0, 9)


def test_features_are_of_images_as_they_are():
    features = chosen(cache_features=True)
    assert (features.flip, features.shift, features.crop_area) == ("no", 0, 1.0)
    check(features)


@pytest.mark.parametrize(("model", "epochs"), [("resnet18", 9), ("swin_t", 9), ("mobilenet_v3_small", 46)])
def test_statistics_that_move_slowly_get_the_steps_they_need(model, epochs):
    digits = load("digits")
    assert filled(Config(model=model), digits, abstract(model, num_classes=10)).epochs == epochs
    assert filled(Config(model=model, weights="w"), digits, abstract(model, num_classes=10)).epochs == 10


@pytest.mark.parametrize(
    ("model", "side"), [("resnet18", 32), ("vit_b_16", 32), ("alexnet", 64), ("lenet5", 32), ("pooled", 32)]
)
def test_digits_are_as_large_as_the_model_needs(model, side, pooled):
    assert images.preparation(Config(model=model), load("digits"), None).crop == side
    assert images.preparation(Config(model=model, image_size=48), load("digits"), None).crop == 48


def test_the_least_size_is_never_more_than_the_published_one(monkeypatch):
    def too_small(*arguments):
        raise UsageError("nothing is left")

    monkeypatch.setattr(images, "program", too_small)
    assert images.smallest(Config(model="resnet18"), 32, 224) == 224


def test_every_default_survives_a_check():
    for model in ("resnet18", "vgg11", "lenet5"):
        check(chosen(model))


def test_segmentation_has_defaults_of_its_own():
    name, scenes = "lraspp_mobilenet_v3_large", load("scenes", "segmentation")
    model = abstract(name, num_classes=11)
    config = filled(Config(model=name), scenes, model)
    assert (config.data, config.batch_size, config.label_smoothing, config.head_lr) == ("scenes", 16, 0.0, 1.0)
    assert (config.flip, config.crop_area, config.shift) == ("no", None, None)
    assert (config.epochs, config.lr) == (15, 2e-3)
    tuned = filled(Config(model=name, data="voc:x", weights_backbone="w.pth"), photographs(2_000), model)
    assert (tuned.lr, tuned.head_lr, tuned.flip) == (3e-4, 10.0, "yes")
