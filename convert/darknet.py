"""Darknet's `.weights` files: a header and all numbers in a row, without names (parser.c of pjreddie/darknet).

The header is the version as three int32, and how many images were seen: an int64 from version 0.2 on, an int32 before.
Then come, layer after layer, float32: biases first, of batch norm then scales, means and variances, and the kernel
last, in the layouts that torch has.
"""

import mmap as memory_map
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from convert.pointers import refuse_pointer
from jaxzoo.errors import UsageError

ENDING = ".weights"
NEWEST = 1000  # Darknet marks files of transposed matrices by versions above
_HEADER = struct.pack("<iiiq", 0, 2, 0, 0)  # what Darknet's own programs write before training
# Within a layer, by the end of the names.
_ORDER = ("bias", "bn.weight", "running_mean", "running_var", "weight")


def is_darknet(path: Path) -> bool:
    """Whether a file is one of Darknet's, by its ending and the version at its start: torch's may end so too."""
    if path.suffix != ENDING or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4)
    return len(head) == 4 and 0 <= struct.unpack("<i", head)[0] <= NEWEST


def ordered(names: Iterable[str]) -> list[str]:
    """Names of tensors in a file's order: by the number of the layer in them, and within it as above.

    Raises UsageError for names of another kind.
    """

    def place(name: str) -> tuple[int, int]:
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        ends = [i for i, end in enumerate(_ORDER) if name.endswith(end)]
        if not numbers or not ends:
            raise UsageError(f"Darknet's files are for networks of numbered layers, and one of this is {name}")
        return numbers[0], ends[0]

    return sorted(names, key=place)


def read(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, np.ndarray], bytes]:
    """The tensors of a network of these shapes, views of the mapped file, and the file's header.

    Raises:
      UsageError: the file holds another count of numbers than these, or none that this reads.
    """
    refuse_pointer(path)
    with path.open("rb") as file:
        data = memoryview(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ))
    header = data[: _header_size(path, data)]
    wanted = sum(int(np.prod(shape)) for shape in shapes.values())
    bytes_there = len(data) - len(header)
    if bytes_there != 4 * wanted:
        what = "cut short" if bytes_there < 4 * wanted else "too long"
        raise UsageError(
            f"{path} is {what}, or of another network: it holds {bytes_there / 4:,.10g} numbers after its header, and "
            f"this one has {wanted:,}"
        )
    numbers, tensors, start = np.frombuffer(data[len(header) :], "<f4"), {}, 0
    for name in ordered(shapes):
        size = int(np.prod(shapes[name]))
        tensors[name] = numbers[start : start + size].reshape(shapes[name])
        start += size
    return {name: tensors[name] for name in shapes}, bytes(header)


def _header_size(path: Path, data: memoryview) -> int:
    if len(data) < 16:
        raise UsageError(f"{path} is cut short: it ends within the header of a Darknet file, after {len(data)} bytes")
    major, minor, _ = struct.unpack("<iii", data[:12])
    if max(major, minor) > NEWEST:
        raise UsageError(f"{path} has version {major}.{minor}: its matrices are transposed, which this does not read")
    return 20 if 10 * major + minor >= 2 else 16


def write(path: Path, tensors: Mapping[str, np.ndarray], header: bytes = b"") -> None:
    """Writes a new file; without a header that of version 0.2, no images seen.

    Raises:
      UsageError: a tensor is not float32, which is all that the format has.
    """
    if wrong := [name for name, array in tensors.items() if array.dtype != np.float32]:
        raise UsageError(f"{path} cannot hold {wrong[0]}, which is {tensors[wrong[0]].dtype}: Darknet has float32 only")
    with path.open("xb") as file:
        file.write(header or _HEADER)
        for name in ordered(tensors):
            file.write(np.ascontiguousarray(tensors[name], "<f4").data)
        file.flush()
        os.fsync(file.fileno())
