"""Files become images: found wherever they are, and read as they are seen."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxzoo import UsageError, read_image
from jaxzoo.images import folders, has_hidden_part, image_files, image_suffixes, to_eight_bits


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


# Which there are


@pytest.mark.parametrize("name", ["a/1.jpg", "a/b/2.PNG", "3.webp", "4.JFIF", "a/5.jp2", "6.dds"])
def test_the_images_of_a_folder_are_found_wherever_they_are(tmp_path, name):
    touch(tmp_path, "notes.txt", "jpg", "b/features.h5", name)
    left = []
    assert image_files(tmp_path, left.append) == [tmp_path / name]
    assert {path.name for path in left} == {"notes.txt", "jpg", "features.h5"}


def test_what_tools_leave_behind_is_passed_over_at_every_level(tmp_path):
    touch(tmp_path, "cat/1.jpg", "cat/old/2.jpg", ".hidden.jpg", "cat/._1.jpg", "cat/old/.DS_Store", "cat/Thumbs.db")
    touch(tmp_path, ".ipynb_checkpoints/1.jpg", "cat/.ipynb_checkpoints/1-checkpoint.jpg", "cat/old/.x/3.jpg")
    touch(tmp_path, "__MACOSX/cat/._1.jpg", "__MACOSX/cat/1.jpg", "cat/desktop.ini")
    left = []
    assert image_files(tmp_path, left.append) == [tmp_path / "cat/1.jpg", tmp_path / "cat/old/2.jpg"]
    assert folders(tmp_path) == [tmp_path / "cat"] and not left


def test_of_absolute_paths_the_folders_are_the_users(tmp_path):
    assert not has_hidden_part("/home/ada/.cache/cat/1.jpg") and not has_hidden_part("../cat/1.jpg")
    assert has_hidden_part("/home/.ipynb_checkpoints/1.jpg") and has_hidden_part("cat/.old/1.jpg")


def test_links_are_followed_once_and_never_upwards(tmp_path):
    touch(tmp_path, "zoo/cat/1.jpg", "zoo/dog/2.jpg", "elsewhere/3.jpg", "zoo/cat/z/4.jpg")
    for link, place in {"cat/all": "zoo", "cat/a": "zoo/cat/z", "dog/more": "elsewhere", "dog/self": "zoo/dog"}.items():
        (tmp_path / "zoo" / link).symlink_to(tmp_path / place)
    (tmp_path / "zoo/up").symlink_to("..")
    (tmp_path / "zoo/dog/round").symlink_to("round")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "zoo/dog")
    zoo = tmp_path / "zoo"
    assert image_files(zoo / "cat") == [zoo / "cat/1.jpg", zoo / "cat/z/4.jpg"]
    assert image_files(zoo / "dog") == [zoo / "dog/2.jpg", zoo / "dog/more/3.jpg"]
    assert folders(zoo) == [zoo / "cat", zoo / "dog"]


def test_every_ending_of_which_pillow_reads_pixels_is_known():
    assert {".jpg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".avif", ".tif", ".jp2", ".dds", ".ico", ".pfm"} < set(
        image_suffixes()
    )
    assert not {".h5", ".grib", ".wmf", ".mpg", ".pdf", ".txt", ".eps"} & image_suffixes()


# Reading them


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def noise(channels: int = 3) -> np.ndarray:
    """Smooth colours under noise, (17, 23, channels), 8 bits."""
    waves = 100 * np.sin(np.arange(17)[:, None, None] / 9 + np.arange(23)[:, None] / 7 + np.arange(channels))
    return np.clip(128 + waves + np.random.default_rng(0).normal(0, 30, waves.shape), 0, 255).astype(np.uint8)


RGB = Image.fromarray(noise())
DEEP = np.random.default_rng(0).integers(0, 1 << 16, (17, 23)).astype(np.uint16)
DEEP[0, 0] = 65535
RAMP = (np.resize(np.arange(256), (17, 23)) / 255).astype(np.float32)


def in_eight_bits(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")


OVER = np.where(RAMP > 0.9, np.float32(1.05), np.where(RAMP < 0.1, np.float32(-0.05), RAMP))


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
        "alpha": (saved(Image.fromarray(np.dstack([noise(), noise(1)])), "PNG"), RGB),
        "cmyk": (saved(RGB.convert("CMYK"), "TIFF"), RGB.convert("CMYK").convert("RGB")),
        "16 bits": (saved(Image.fromarray(DEEP), "PNG"), in_eight_bits(DEEP / 257)),
        "16 bits, tiff": (saved(Image.fromarray(DEEP), "TIFF"), in_eight_bits(DEEP / 257)),
        "12 bits": (saved(Image.fromarray(DEEP >> 4), "PNG"), in_eight_bits((DEEP >> 4) / 4095 * 255)),
        "8 bits in 16": (saved(Image.fromarray(DEEP >> 8), "PNG"), in_eight_bits(DEEP >> 8)),
        "32 bits": (saved(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), in_eight_bits(DEEP / 257)),
        "floats to 1": (saved(Image.fromarray(RAMP), "TIFF"), in_eight_bits(RAMP * 255)),
        "floats to 255": (saved(Image.fromarray(RAMP * 255), "TIFF"), in_eight_bits(RAMP * 255)),
        "floats resampled": (saved(Image.fromarray(OVER), "TIFF"), in_eight_bits(255 * OVER.clip(0, 1))),
        "floats to 7000": (saved(Image.fromarray(RAMP * 7000), "TIFF"), in_eight_bits(RAMP * 255)),
        "floats around 0": (saved(Image.fromarray(4 * RAMP - 2), "TIFF"), in_eight_bits(RAMP * 255)),
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


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Tag, kind, count and bytes of each value, as TIFF has them."""
    body = b"".join(struct.pack("<HHL4s", tag, kind, n, value.ljust(4, b"\0")) for tag, kind, n, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<LH", 8, len(entries)) + body + struct.pack("<L", 0)


TURNED = (274, 3, 1, struct.pack("<H", 6))


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize(
    ("data", "size"),
    [
        (exif(TURNED, (296, 2, 3, b"in\0")), (17, 23)),
        (exif((256, 2, 4, b"abc\0"), TURNED), (17, 23)),
        (exif(TURNED, (34665, 4, 1, struct.pack("<L", 60000))), (17, 23)),
        (b"Exif\0\0" + exif(TURNED), (17, 23)),
        (exif(TURNED)[:20], (23, 17)),  # cut short before the orientation
        (exif((274, 2, 4, b"six\0")), (23, 17)),
        (exif((274, 3, 1, struct.pack("<H", 60))), (23, 17)),
        (b"Exif\0\0nonsense", (23, 17)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_wrong_elsewhere_in_exif_neither_hides_the_picture_nor_keeps_it_from_being_turned(data, size, kind):
    assert read_image(saved(RGB, kind, exif=data)).size == size


def test_a_shape_drawn_in_transparency_alone_is_seen():
    shape = np.zeros((17, 23, 4), np.uint8)
    shape[5:9, 5:9, 3] = 255
    for color in (0, 255):
        shape[..., :3] = color
        expected = np.full((17, 23), 255 - color)
        expected[5:9, 5:9] = color
        pixels = np.asarray(read_image(saved(Image.fromarray(shape), "PNG")))
        np.testing.assert_array_equal(pixels, np.dstack([expected] * 3))


def test_pixels_that_are_no_numbers_are_the_darkest_and_an_image_of_them_is_refused(tmp_path):
    values = RAMP.copy()
    values[3, 4] = np.nan
    np.testing.assert_array_equal(to_eight_bits(values), np.where(np.isnan(values), 0, np.round(RAMP * 255)))
    Image.fromarray(RAMP * np.nan).save(tmp_path / "lost.tif")
    with pytest.raises(UsageError, match=r"lost\.tif .*none of its pixels is a number"):
        read_image(tmp_path / "lost.tif")


@pytest.mark.parametrize(
    "error", [struct.error, SyntaxError, EOFError, OverflowError, KeyError, MemoryError, zlib.error]
)
def test_whatever_pillow_raises_is_said_of_the_file(tmp_path, monkeypatch, error):
    def fail(image):
        raise error("bad marker")

    RGB.save(tmp_path / "cat.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UsageError, match=r"cat\.png cannot be read as an image \(.*bad marker"):
        read_image(tmp_path / "cat.png")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UsageError, match="decompression bomb"):
        read_image(tmp_path / "cat.png")


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
