"""Classes take what torchvision's of the same name take, in its order; `rngs` and what is ours alone go by keyword."""

import importlib
import inspect
import pkgutil

import pytest
from flax import nnx

from convert.rules import leaves
from tests.parity.attributes import differences

REFERENCE = {"classification": "torchvision.models", "segmentation": "torchvision.models.segmentation"}

# Arguments that ours do not have, and why.
BY_THE_IMAGE = "the size of a map follows from the image"
SHARED = "what all layers of a network share comes with the functions that build their parts"
LACKING = {
    "maxvit.PartitionAttentionLayer": {"grid_size": BY_THE_IMAGE},
    "maxvit.MaxVitLayer": {
        "grid_size": BY_THE_IMAGE,
        **dict.fromkeys(
            ("squeeze_ratio", "expansion_ratio", "norm_layer", "activation_layer", "head_dim", "mlp_ratio"), SHARED
        ),
        **dict.fromkeys(("mlp_dropout", "attention_dropout", "partition_size"), SHARED),
    },
    "convnext.ConvNeXt": {"kwargs": "is not used"},
    "mobilenetv3.MobileNetV3": {"kwargs": "is not used"},
}
# Classes of torchvision's that ours do without, and why.
ABSENT = {
    "convnext.LayerNorm2d": "maps are channels last: LayerNorm does it",
    "inception.BasicConv2d": "is GoogLeNet's",
    "maxvit.MaxVitBlock": "takes its layers, where the reference's takes what they are built with",
    "maxvit.SwapAxes": "is one operation",
    "maxvit.WindowPartition": "is jaxzoo.nn.window_partition",
    "maxvit.WindowDepartition": "is jaxzoo.nn.window_reverse",
    "regnet.AnyStage": "is a NamedSequential of blocks",
    "vision_transformer.MLPBlock": "is jaxzoo.nn.MLP; the reference keeps the class for old pickles",
}


def public_classes() -> dict[str, tuple[type | None, type]]:
    """Ours and torchvision's by file and name."""
    found = {}
    for task, package in REFERENCE.items():
        ours_of = importlib.import_module(f"jaxzoo.{task}")
        for file in pkgutil.iter_modules(ours_of.__path__):
            try:
                theirs = importlib.import_module(f"{package}.{file.name}")
            except ModuleNotFoundError:  # a network that torchvision does not have
                continue
            ours = importlib.import_module(f"{ours_of.__name__}.{file.name}")
            for name, reference in vars(theirs).items():
                own = inspect.isclass(reference) and reference.__module__ == theirs.__name__
                if own and name[0] != "_" and not name.endswith("_Weights"):
                    found[f"{file.name}.{name}"] = getattr(ours, name, None), reference
    return found


CLASSES = public_classes()


def arguments(kind: type) -> list[str]:
    """What may be given by its place."""
    made_by = kind.__new__ if issubclass(kind, tuple) else kind.__init__
    parameters = list(inspect.signature(made_by).parameters.values())[1:]
    return [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - ABSENT.keys()))
def test_a_class_takes_torchvisions_arguments_in_its_order(name):
    ours, theirs = CLASSES[name]
    wanted = [argument for argument in arguments(theirs) if argument not in LACKING.get(name, {})]
    assert arguments(ours)[: len(wanted)] == wanted


def test_exceptions_are_classes_and_arguments_of_torchvisions():
    assert ABSENT.keys() | LACKING.keys() <= CLASSES.keys()
    for name, reasons in LACKING.items():
        assert reasons.keys() <= set(arguments(CLASSES[name][1]))


# A small network of each family, built from a file of either side; what is ours alone comes last. Without dropout where
# torchvision has it as a function, not as a module.
NETWORKS = {
    "alexnet": lambda m, own: m.AlexNet(5, 0.1, **own),
    "convnext": lambda m, own: m.ConvNeXt(
        [m.CNBlockConfig(8, 16, 1), m.CNBlockConfig(16, None, 2)], 0.1, 1e-6, 5, m.CNBlock, **own
    ),
    "densenet": lambda m, own: m.DenseNet(4, (1, 2), 8, 2, 0.0, 5, **own),
    "efficientnet": lambda m, own: m.EfficientNet(
        [m.FusedMBConvConfig(4, 3, 2, 8, 16, 2), m.MBConvConfig(6, 5, 1, 16, 24, 1, 1.5, 1.1)], 0.1, 0.2, 5, **own
    ),
    "googlenet": lambda m, own: m.GoogLeNet(
        5, True, False, False, [m.BasicConv2d, m.Inception, m.InceptionAux], 0.1, **own
    ),
    "inception": lambda m, own: m.Inception3(
        5,
        True,
        False,
        [
            m.BasicConv2d,
            m.InceptionA,
            m.InceptionB,
            m.InceptionC,
            m.InceptionD,
            m.InceptionE,
            m.InceptionAux,
        ],
        False,
        **own,
    ),
    "maxvit": lambda m, own: m.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 4, 0.1, **own),
    "mnasnet": lambda m, own: m.MNASNet(0.3, 5, 0.1, **own),
    "mobilenetv2": lambda m, own: m.MobileNetV2(5, 0.5, [[1, 16, 1, 1], [6, 24, 2, 2]], 8, m.InvertedResidual, **own),
    "mobilenetv3": lambda m, own: m.MobileNetV3(
        [
            m.InvertedResidualConfig(16, 3, 32, 24, True, "RE", 2, 1, 1.5),
            m.InvertedResidualConfig(24, 5, 64, 24, False, "HS", 1, 2, 1.5),
        ],
        64,
        5,
        m.InvertedResidual,
        **own,
    ),
    "regnet": lambda m, own: m.RegNet(
        m.BlockParams.from_init_params(6, 24, 24.5, 2.5, 16, 0.5, 0.25), 5, 16, m.SimpleStemIN, **own
    ),
    "resnet": lambda m, own: m.ResNet(m.Bottleneck, [1, 2, 1, 1], 5, True, 2, 16, [False, True, True], **own),
    "shufflenetv2": lambda m, own: m.ShuffleNetV2([1, 2, 1], [8, 16, 32, 64, 48], 5, m.InvertedResidual, **own),
    "squeezenet": lambda m, own: m.SqueezeNet("1_0", 5, 0.1, **own),
    "swin_transformer": lambda m, own: m.SwinTransformer(
        [2, 2], 8, [1, 2], [2, 4], [3, 5], 2.0, 0.0, 0.0, 0.1, 5, **own
    ),
    "vision_transformer": lambda m, own: m.VisionTransformer(16, 4, 2, 2, 8, 12, 0.1, 0.0, 5, 6, **own),
}


@pytest.mark.parametrize("file", NETWORKS)
def test_a_network_built_as_torchvisions_is_torchvisions(file):
    ours, theirs = (importlib.import_module(f"{p}.{file}") for p in ("jaxzoo.classification", "torchvision.models"))
    twin = NETWORKS[file](theirs, {})
    model = nnx.eval_shape(lambda: NETWORKS[file](ours, {"rngs": nnx.Rngs(0)}))
    shapes = {key: tuple(tensor.shape) for key, tensor in twin.state_dict().items()}
    assert {leaf.key: leaf.torch_shape for leaf in leaves(model)} == shapes
    assert not list(differences(model, twin))
