"""A small network that segments, on `blocks`, with everything that options of the trainer reach for."""

from flax import nnx

from jaxzoo import nn, register_model
from jaxzoo.errors import UsageError
from jaxzoo.segmentation.simple import SimpleSegmentationModel
from tests.train.blocks import Blocks


class Pixels(SimpleSegmentationModel):
    def __init__(self, num_classes: int = 21, aux_loss: bool = False, output_stride: int = 4, *, rngs: nnx.Rngs):
        if output_stride not in (2, 4):
            raise UsageError(f"output_stride is {output_stride}; it must be 2 or 4")
        network = Blocks(rngs=rngs)
        network.stem.strides = (output_stride, output_stride)
        network.stem.padding = (((4 - output_stride) // 2,) * 2,) * 2
        backbone = nn.IntermediateLayers(network, {"stem": "aux", "blocks": "out"})
        classifier = nn.Sequential(nn.Dropout(0.1, rngs=rngs), nn.Conv(8, num_classes, 1, rngs=rngs))
        super().__init__(backbone, classifier, nn.Conv(8, num_classes, 1, rngs=rngs) if aux_loss else None)


def register() -> None:
    """Enters the network, which starts from weights of `blocks` where that is asked for."""

    @register_model(paper="none", task="segmentation", input_size=32, parts={"blocks": {"": "backbone."}})
    def pixels(*, rngs: nnx.Rngs, **arguments) -> Pixels:
        return Pixels(rngs=rngs, **arguments)
