"""model_sizes.json says of every model what its building and running would show."""

import pytest
import torchvision

from convert.shapes import abstract
from jaxzoo import card, list_models, model_info
from jaxzoo.inspect import multiply_adds
from jaxzoo.inspect.model_info import measure
from jaxzoo.model_size import stored
from tests.models_table import measured

FOR_EVERY_BOX = ("mask_head", "mask_predictor")
FOR_BOXES_FOUND = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
)
AGAIN = "write model_sizes.json anew: python -m tests.models_table"


def test_the_sizes_are_those_of_the_models_that_there_are():
    assert sorted(stored()) == list_models(), AGAIN


@pytest.mark.full("fcn8s", "lenet5", "mobilevit_xxs", "resnet18", "shufflenet_v1_g2", "unet_resnet18")
@pytest.mark.parametrize("name", list_models())
def test_the_sizes_are_those_of_the_model(name):
    assert stored()[name] == measured(name), AGAIN


@pytest.mark.parametrize("name", [n for n in list_models() if card(n).twin.startswith("torchvision:")])
def test_the_sizes_are_torchvisions(name):
    info = model_info(name)
    for entry in torchvision.models.get_model_weights(name):
        if info.task != "classification":  # with an auxiliary head, or frozen batch norm, if these weights have it
            model = abstract(name, **card(name).weights[entry.name].arguments)
            counts = multiply_adds(model, card(name).example_inputs())
            assert measure(model, card(name).example_inputs()).parameters == entry.meta["num_params"]
            # Ours are for as many boxes as there may be, torchvision's for those that it found in some image.
            for_boxes = sum(counts.get(f"roi_heads.{head}", 0) for head in FOR_EVERY_BOX)
            if name in FOR_BOXES_FOUND:
                assert counts["backbone"] < 1e9 * entry.meta["_ops"] < counts[""]
            else:
                assert (counts[""] - for_boxes) / 1e9 == pytest.approx(entry.meta["_ops"], abs=6e-4)
        elif entry.transforms().crop_size == [info.input_size]:
            assert info.multiply_adds / 1e9 == pytest.approx(entry.meta["_ops"], abs=6e-4)
            if name != "googlenet":  # whose published weights lack the auxiliary heads
                assert info.parameters == entry.meta["num_params"]
