"""Images are read whatever their kind, and prepared to torchvision's and timm's pixels."""

import dataclasses
import io
import math

import numpy as np
import pytest
import timm
import torchvision
from PIL import Image
from torchvision.transforms._presets import ImageClassification

import jaxzoo
from jaxzoo import Preprocess, UsageError, eval_transform, read_image
from jaxzoo.preprocess import image_files


def published(package: str) -> list:
    """A model that classifies and its weights for each eval transform among those that a package published."""
    found = {}
    for name in jaxzoo.list_models(task="classification"):
        if jaxzoo.card(name).twin.startswith(f"{package}:"):
            for weights, entry in jaxzoo.card(name).weights.items():
                found.setdefault(entry.preprocess, pytest.param(name, weights, id=f"{name}-{weights}"))
    return list(found.values())


SIZES = [(333, 251), (250, 377), (224, 224), (97, 61), (31, 640), (1, 3)]


def noise(width: int, height: int, channels: int = 3) -> np.ndarray:
    """Smooth colours under noise, 8 bits."""
    rng = np.random.default_rng([width, height])
    waves = 100 * np.sin(np.arange(height)[:, None, None] / 9 + np.arange(width)[:, None] / 7 + np.arange(channels))
    return np.clip(128 + waves + rng.normal(0, 30, (height, width, channels)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("name", "weights"), published("torchvision"))
def test_the_eval_transform_equals_torchvisions_bit_for_bit(name, weights):
    theirs = torchvision.models.get_model_weights(name)[weights].transforms()
    for size in SIZES:
        image = Image.fromarray(noise(*size))
        ours = eval_transform(image, jaxzoo.card(name).weights[weights].preprocess)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("name", "weights"), published("timm"))
def test_the_eval_transform_equals_timms_bit_for_bit(name, weights):
    config = timm.get_pretrained_cfg(f"{jaxzoo.card(name).twin.removeprefix('timm:')}.{weights}")
    theirs = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config.to_dict()))
    for size in SIZES:
        image = Image.fromarray(noise(*size))
        ours = eval_transform(image, jaxzoo.card(name).weights[weights].preprocess)
        np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", [n for n in jaxzoo.list_models() if jaxzoo.card(n).twin.startswith("timm:")])
def test_the_card_names_timms_transform(name):
    card = jaxzoo.card(name)
    for weights, entry in card.weights.items():
        config = timm.get_pretrained_cfg(f"{card.twin.removeprefix('timm:')}.{weights}").to_dict()
        theirs, ours = timm.data.resolve_data_config(pretrained_cfg=config), entry.preprocess
        assert theirs["input_size"] == (3, ours.crop, ours.crop) and theirs["crop_mode"] == "center"
        assert ours.resize == math.floor(ours.crop / theirs["crop_pct"])
        assert (ours.interpolation, ours.mean, ours.std) == (theirs["interpolation"], theirs["mean"], theirs["std"])


@pytest.mark.parametrize("size", [(51, 40), (40, 40), (40, 67), (41, 300)])
@pytest.mark.parametrize(("crop", "resize"), [(43, 40), (40, 43), (44, 41), (60, 20), (33, None)])
def test_a_crop_larger_than_the_image_is_padded_as_torchvision_does(size, crop, resize):
    theirs = ImageClassification(crop_size=crop, resize_size=resize or crop)
    image = Image.fromarray(noise(*size))
    ours = eval_transform(image, Preprocess(crop, resize))
    np.testing.assert_array_equal(ours, theirs(image).permute(1, 2, 0).numpy())


def test_preprocess_survives_a_manifest():
    p = Preprocess(224, 256, "bicubic", (0.5, 0.5, 0.5), (0.1, 0.2, 0.3))
    assert Preprocess(**dataclasses.asdict(p)) == p


@pytest.mark.parametrize("name", ["a/1.jpg", "a/b/2.PNG", "3.webp"])
def test_the_images_of_a_folder_are_found_wherever_they_are(tmp_path, name):
    for other in ("notes.txt", "a/.hidden.jpg", "jpg", name):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).touch()
    assert image_files(tmp_path) == [tmp_path / name]


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


RGB = Image.fromarray(noise(23, 17))
DEEP = np.random.default_rng(0).integers(0, 1 << 16, (17, 23)).astype(np.uint16)


@pytest.mark.parametrize(
    ("file", "expected"),
    {
        "png": (saved(RGB, "PNG"), RGB),
        "bmp": (saved(RGB, "BMP"), RGB),
        "webp": (saved(RGB, "WEBP", lossless=True), RGB),
        "gray": (saved(RGB.convert("L"), "PNG"), RGB.convert("L").convert("RGB")),
        "gray with alpha": (saved(RGB.convert("LA"), "PNG"), RGB.convert("L").convert("RGB")),
        "black and white": (saved(RGB.convert("1"), "PNG"), RGB.convert("1").convert("RGB")),
        "palette": (saved(RGB.quantize(200), "PNG"), RGB.quantize(200).convert("RGB")),
        "transparent palette": (saved(RGB.quantize(200), "PNG", transparency=3), RGB.quantize(200).convert("RGB")),
        "gif": (saved(RGB.quantize(200), "GIF"), RGB.quantize(200).convert("RGB")),
        "alpha": (saved(Image.fromarray(np.dstack([noise(23, 17), noise(23, 17)[..., :1]])), "PNG"), RGB),
        "cmyk": (saved(RGB.convert("CMYK"), "TIFF"), RGB.convert("CMYK").convert("RGB")),
        "16 bits": (saved(Image.fromarray(DEEP), "PNG"), Image.fromarray((DEEP >> 8).astype(np.uint8)).convert("RGB")),
        "16 bits, tiff": (
            saved(Image.fromarray(DEEP), "TIFF"),
            Image.fromarray((DEEP >> 8).astype(np.uint8)).convert("RGB"),
        ),
    }.values(),
)
def test_every_kind_of_image_becomes_rgb(file, expected):
    file.seek(0)
    image = read_image(file)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = [None, None, 0, 3, 1, 5, 4, 6, 2]  # PIL's transpositions that undo EXIF's orientations
    expected = RGB if orientation == 1 else RGB.transpose(Image.Transpose(turns[orientation]))
    np.testing.assert_array_equal(read_image(saved(RGB, "PNG", exif=exif)), expected)


def test_cmyk_photographs_keep_their_colours():
    red = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    assert np.abs(np.asarray(read_image(saved(red, "JPEG"))).astype(int) - (255, 0, 0)).max() < 20


def broken(tmp_path, kind):
    path = tmp_path / "cat.jpg"
    jpeg = saved(RGB, "JPEG").getvalue()
    if kind == "missing":
        return path
    if kind == "directory":
        path.mkdir()
        return path
    path.write_bytes(
        {"empty": b"", "text": b"not an image", "truncated": jpeg[: len(jpeg) // 2], "headless": jpeg[20:]}[kind]
    )
    return path


@pytest.mark.parametrize("kind", ["missing", "directory", "empty", "text", "truncated", "headless"])
def test_what_is_no_image_is_named_and_refused(tmp_path, kind):
    path = broken(tmp_path, kind)
    with pytest.raises(UsageError, match=r"cat\.jpg"):
        read_image(path)
    with pytest.raises(UsageError, match="the 7th image"):
        read_image(path, "the 7th image")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_damaged_file_is_read_or_refused_and_never_crashes(kind):
    intact = saved(RGB if kind != "GIF" else RGB.quantize(9), kind).getvalue()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(intact)
        for at in rng.integers(0, len(intact), rng.integers(1, 9)):
            damaged[at] = rng.integers(0, 256)
        try:
            image = read_image(io.BytesIO(bytes(damaged[: rng.integers(8, len(intact) + 1)])), "x")
        except UsageError as error:
            assert "x cannot be read as an image" in str(error)
        else:
            assert image.mode == "RGB"
