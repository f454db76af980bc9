"""A short run of a small Mask R-CNN finds the shapes of objects."""

from tests.train.boxes import paint_diamonds
from tests.train.launch import train
from tests.train.same import rows

OPTIONS = "--model masks --epochs 6 --batch-size 4 --lr 0.005 --image-size 48 --seed 0"


def test_masks_are_learnt_in_a_short_run(tmp_path):
    data = paint_diamonds(tmp_path / "diamonds", 120)
    train(*OPTIONS.split(), "--data", f"coco:{data}", "--out", tmp_path / "run")
    first, *_, last = rows(tmp_path / "run")
    assert float(first["val_segm_map"]) < 0.2 and float(last["val_segm_map"]) > 0.65
    assert float(last["val_segm_map_75"]) > 0.8  # a diamond is half of its box: a filled box has an overlap of 0.5
