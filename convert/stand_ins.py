"""Objects that `torch.load(weights_only=True)` builds in place of those that hold no tensors and that it would refuse.

Nothing here runs anything: a plain container becomes a dict or a list, other objects an empty one.
"""

from typing import Any


class Ignored:
    """Stands for an object that holds no weights: built of anything, holding nothing, running nothing."""

    def __new__(cls, *args):
        return object.__new__(cls)

    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        pass


class _Dict:
    """Builds a dict, in which torch sets the items that the file has."""

    def __new__(cls, *args):
        return {}


class _List:
    def __new__(cls, *args):
        return []


_DICTS = (
    "collections.defaultdict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)
_LISTS = ("collections.deque",)
_NOTHINGS = (
    *("argparse.Namespace", "types.SimpleNamespace", "range", "xrange", "slice", "complex", "bytearray", "set"),
    *("frozenset", "list", "dict", "int", "float", "str", "bool", "tuple", "object"),
    *(
        "collections.UserDict",
        "collections.UserList",
        "collections.ChainMap",
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
    ),
    *("pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
    *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
    *("datetime.datetime", "datetime.timedelta", "datetime.date", "datetime.time", "datetime.timezone"),
    *("numpy.dtype", "numpy.ndarray", "torch.torch_version.TorchVersion"),
    *(
        f"{package}.multiarray.{name}"
        for package in ("numpy.core", "numpy._core")
        for name in ("scalar", "_reconstruct")
    ),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("generator", "bit_generator", "randomstate")),
    *("numpy.random._pcg64.PCG64", "numpy.random._mt19937.MT19937", "numpy.random.bit_generator.SeedSequence"),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "mmengine.logging.history_buffer.HistoryBuffer",
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.nodes.AnyNode"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "typing.Any"),
)


def stand_ins() -> list[tuple[Any, str]]:
    """For `torch.serialization.safe_globals`: what to build, and for which global of the file."""
    names = [(_Dict, name) for name in _DICTS] + [(_List, name) for name in _LISTS]
    for name in _NOTHINGS:
        # Built-in types go by the name that they had in Python 2 too, as pickle writes them for it.
        modules = ("builtins.", "__builtin__.") if "." not in name else ("",)
        names += [(Ignored, module + name) for module in modules]
    return names
