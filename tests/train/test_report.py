"""report.html: all of a run in one file, whatever is in it."""

import html.parser
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.train.test_pictures import MEAN, STD, confused, epochs
from train.config.options import Config
from train.reporting import batch, confusion, contact_sheet, mistakes, page, records, worth_less_than_the_run

CLASSES = ["cat", "dog", "<script>alert('emu')</script>"]
OTHERS = ("Segments", "Average precision", "Confidence", "Errors")  # sections of other tasks


class Reader(html.parser.HTMLParser):
    """Tags that were opened and never closed, all attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a run has written after three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "tiny-pets"
    folder.mkdir()
    options = {"model": "tiny", "data": "folder:<b>pets", "epochs": 9, "model_args": ["dropout=0.2"], "lr": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(options | {"versions": {"jax": "0.10.1", "commit": "a97a49b"}}))
    records.write(folder / "metrics.csv", epochs(3, averaged=True))
    records.write(folder / "timing.csv", [{"epoch": 3, "step": 30, "images": 4000, "seconds": 20.0}])
    for step in (10, 20, 30):
        records.line(folder / "steps.jsonl", {"step": step, "loss": 1 / step, "gradient_norm": float("nan")})
    confusion.write(confused(classes=3)[2], CLASSES, folder)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    errors = {"index": [1], "true": [2], "predicted": [0], "probability": [0.75]}
    errors = {name: np.array(values) for name, values in errors.items()}
    mistakes.write(errors, CLASSES, lambda i: pixels[i], lambda i: f"pets/{i}&.jpg", folder)
    for name in ("train", "val"):
        images = (pixels / 255 - MEAN) / STD
        tiles = batch.batch_tiles(images, [0, 1, 2], CLASSES, mean=MEAN, std=STD)
        contact_sheet.draw_sheet(tiles, name, folder / f"{name}_batch.png")
    page.write(folder)
    return folder


def test_the_page_shows_everything_of_the_run(run):
    text = (run / "report.html").read_text()
    reader = Reader(text)
    assert not reader.open
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == ["Curves", *(name for name in page.SECTIONS if name not in OTHERS), "Options"]
    assert text.count("<svg") == 3 + 1  # loss, accuracy and rate by epoch; loss by step
    assert text.count("<img") == 1 + 3 + 3
    for told in ("3 of 9", "200 images/s", "16.67%", "best 50.00% in epoch 1", "said cat 75.0%", "1&.jpg", "a97a49b"):
        assert told in reader.text
    assert "dropout=0.2" in reader.text


def test_the_page_needs_nothing_but_itself_and_believes_no_name(run):
    text = (run / "report.html").read_text()
    reader = Reader(text)
    assert CLASSES[2] in reader.text and "folder:<b>pets" in reader.text
    assert "<script" not in text and "<b>" not in text
    for _, name, value in reader.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), value
    assert "default-src 'none'" in text and "url(http" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_the_page_is_written_again_when_there_is_more_and_is_the_same_when_there_is_not(run):
    before = (run / "report.html").read_bytes()
    page.write(run)
    assert (run / "report.html").read_bytes() == before
    assert not list(run.glob(".*"))


def test_the_page_says_when_there_is_nothing_yet(tmp_path):
    page.write(tmp_path)
    assert "No epoch is finished yet" in (tmp_path / "report.html").read_text()


def test_pictures_that_only_a_task_knows_are_shown_under_their_names(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "optical_flow.png")
    page.write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<h2>Optical flow</h2>" in text and text.count("data:image/png") == 1


def test_many_classes_become_a_picture_and_the_worst_come_first(tmp_path):
    matrix = np.eye(40, dtype=int) * 20
    matrix[5, 6] = 30
    confusion.write(matrix, [f"class {i}" for i in range(40)], tmp_path)
    page.write(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "data:image/png" in text and "class 5 → class 6" in text
    assert text.index("<td>class 5</td>") < text.index("<td>class 0</td>")
    assert "All 40 classes" in text


def test_options_that_differ_from_the_defaults_come_first(run):
    text = (run / "report.html").read_text()
    shown, everything = text[text.index("Options given or chosen") :].split("<details>")
    assert "folder:&lt;b&gt;pets" in shown and "<td>epochs</td>" in shown
    assert "<td>lr</td>" not in shown and "<td>lr</td>" in everything
    assert Config().lr is None


def test_a_report_that_cannot_be_written_does_not_end_the_run():
    said = []
    with worth_less_than_the_run(said.append):
        raise OSError("no space left on device")
    assert said == ["the report is not complete: OSError: no space left on device"]
    with pytest.raises(KeyboardInterrupt), worth_less_than_the_run(said.append):
        raise KeyboardInterrupt
