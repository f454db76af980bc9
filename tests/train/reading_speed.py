"""`python -m tests.train.reading_speed`: how fast batches are made of JPEGs, beside plain Pillow on as many threads.

Photographs of about 500 x 400 pixels become crops of 224. Plain Pillow opens each file, converts it to RGB and resizes
a box of it; the batches of training do the same and all else: EXIF, the order, the generators, stacking. Both take
turns, so that whatever else the machine does hits both.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

from jaxzoo.malloc import keep_freed_memory
from train.augment import Augmentation
from train.augment.host import augmented, crop_box
from train.data import Data, load
from train.data.batches import Batch, TrainingBatches
from train.data.prefetch import read_ahead


def make_photographs(folder: Path, count: int) -> None:
    """Parts of skimage's photographs, 480 to 520 x 380 to 420 pixels, as JPEGs of quality 90."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(image()).convert("RGB") for image in (skimage.data.astronaut, skimage.data.coffee)]
    for i in range(count):
        photograph = photographs[i % 2]
        width, height = (int(rng.integers(low, low + 41)) for low in (480, 380))
        box = (0, 0, int(rng.integers(350, 512)), int(rng.integers(300, 400)))
        path = folder / f"{i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.resize((width, height), Image.Resampling.BICUBIC, box).save(path, quality=90)


def plain_pillow(paths: list[Path], threads: int) -> int:
    """Opens, converts and crops every image; returns their number."""

    def crop(number: int) -> None:
        with Image.open(paths[number]) as opened:
            image = opened.convert("RGB")
        image.resize((224, 224), Image.Resampling.BILINEAR, crop_box(image.size, np.random.default_rng(number)))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(crop, range(len(paths))))
    return len(paths)


def batches(data: Data, threads: int) -> int:
    """Makes an epoch of training batches; returns the number of images."""
    options = Augmentation(crop_area=0.08)

    def example(item: tuple[Image.Image, int], rng: np.random.Generator) -> Batch:
        return {"image": np.asarray(augmented(item[0], rng, options, 224)), "label": np.int32(item[1])}

    made = TrainingBatches(data.train, example, 16, seed=0)
    return sum(len(batch["label"]) for batch in read_ahead(made, 0, made.per_epoch, workers=threads))


def measured(make: Callable[..., int], *arguments: Any) -> np.ndarray:
    """Images per second, and per second that a core works, which other load on the machine disturbs less."""
    start, worked = time.perf_counter(), time.process_time()
    count = make(*arguments)
    return count / np.array([time.perf_counter() - start, time.process_time() - worked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_freed_memory()  # as `python -m train` does
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder), options.images)
        data, paths, ratios = load(f"folder:{folder}", val_fraction=0.01), sorted(Path(folder).rglob("*.jpg")), []
        plain_pillow(paths, options.threads), batches(data, options.threads)  # reads the files into memory
        for _ in range(options.rounds):
            before = measured(plain_pillow, paths, options.threads)
            ours = measured(batches, data, options.threads)
            after = measured(plain_pillow, paths, options.threads)
            ratios.append(2 * ours / (before + after))
            print(f"images/s: batches {ours[0]:.0f}, Pillow {before[0]:.0f} and {after[0]:.0f}", flush=True)
        by_time, by_work = np.median(ratios, axis=0)
        print(f"batches / Pillow, medians: {by_time:.2f} by the clock, {by_work:.2f} by processor time")


if __name__ == "__main__":
    main()
