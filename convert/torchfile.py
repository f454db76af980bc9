"""Reads what `torch.save` wrote, without torch and without running anything in it.

Importing torch costs a second and 660 MB before the first weight is read. A torch file is a pickle that says which
tensors there are, beside the tensors' bytes. The pickle may name only what stands in `_KNOWN`, a smaller set than
`torch.load(weights_only=True)` allows; everything else is refused by name. Tensors become views of the mapped file.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

# fmt: off
_DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in (
        np.float64, np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz, np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32,
        np.uint16, np.uint8, np.bool_, np.complex64, np.complex128,
    )
}
# fmt: on

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


class Refused(Exception):
    """The pickle asks for something that is no plain data; the message names it."""


class _Opaque:
    """Stands for an object without weights (arguments, devices, NumPy scalars): built of anything, holding nothing."""

    def __new__(cls, *args, **kwargs):
        return object.__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class _Storage:
    """The bytes behind one or several tensors; a legacy file names it before it says where the bytes are."""

    def __init__(self, dtype: np.dtype, nbytes: int, buffer: memoryview | None = None):
        self.dtype, self.nbytes, self.buffer = dtype, nbytes, buffer


class _Tensor:
    """A tensor whose bytes are looked up when the whole pickle has been read."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple, stride: tuple, dtype: np.dtype):
        self.storage, self.offset, self.shape, self.stride, self.dtype = storage, offset, shape, stride, dtype

    def __setstate__(self, state):  # attributes that somebody hung on a tensor
        pass

    def array(self) -> np.ndarray:
        size = self.dtype.itemsize
        if any(n == 0 for n in self.shape):
            return np.empty(self.shape, self.dtype)
        strides = [step * size for step in self.stride]
        # NumPy itself refuses a shape and strides that leave the buffer.
        return np.ndarray(self.shape, self.dtype, self.storage.buffer, self.offset * size, strides)


def _tensor(storage, offset, shape, stride, *rest) -> _Tensor:
    metadata = rest[2] if len(rest) > 2 else None
    if metadata:
        raise Refused(f"a tensor with {', '.join(map(str, metadata))}")
    return _Tensor(storage, offset, tuple(shape), tuple(stride), storage.dtype)


def _tensor_v3(storage, offset, shape, stride, requires_grad, hooks, dtype, *rest) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(stride), dtype)


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "collections.Counter": collections.Counter,
    "collections.defaultdict": lambda *args: {},
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
    "torch._tensor._rebuild_from_type_v2": lambda rebuild, kind, args, state: rebuild(*args),
    "torch.Size": tuple,
    **{
        f"{module}.{name}": frozenset if name == "frozenset" else set
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset")
    },
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    **{
        f"{module}.{name}": _DTYPES[dtype]
        for module in ("torch", "torch.cuda", "torch.storage")
        for name, dtype in _STORAGES.items()
    },
    # What training scripts leave beside the weights.
    **dict.fromkeys(
        (
            "torch.device",
            "torch.Tensor",
            "torch.nn.parameter.Parameter",
            "argparse.Namespace",
            "pathlib.Path",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "pathlib._local.PosixPath",
            "pathlib._local.WindowsPath",
            "numpy.dtype",
            "numpy.ndarray",
            "numpy.core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray.scalar",
            "numpy._core.multiarray._reconstruct",
            "_codecs.encode",
            "datetime.datetime",
            "datetime.timedelta",
        ),
        _Opaque,
    ),
}


# What torch.save writes in protocols 2 to 5. Left out: other ways to name a class, and to ask for much memory.
_OPCODES = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE
BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS
EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL
STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
"""


class _Unpickler(pickle._Unpickler):  # the one in Python: the one in C lets a damaged file ask for any amount of memory
    dispatch = {code[0]: pickle._Unpickler.dispatch[code[0]] for code in map(pickle.__dict__.get, _OPCODES.split())}

    def __init__(self, file: Any, find_storage: Callable[[tuple], _Storage]):
        super().__init__(file, encoding="utf-8")
        self._find_storage = find_storage

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get(f"{module}.{name}")
        if known is None:
            raise Refused(f"{module}.{name}")
        return known

    def persistent_load(self, saved: tuple) -> _Storage:
        if saved[0] != "storage":
            raise Refused(f"a pickled {saved[0]}")
        return self._find_storage(saved)


def load(buffer: memoryview) -> Any:
    """What was saved, with NumPy arrays in place of tensors, as views of `buffer` (the whole file).

    Raises:
        Refused: the pickle would run code, or builds objects that are no plain data.
        Exception: of many kinds, when this is no torch file or a damaged one.
    """
    is_zip = zipfile.is_zipfile(_File(buffer))
    return _arrays(_load_zip(buffer) if is_zip else _load_legacy(buffer))


class _File:
    """A file over a buffer; reads no more than there is, however much a damaged file asks for."""

    def __init__(self, buffer: memoryview):
        self._buffer, self._at = buffer, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, len(self._buffer))[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        stop = len(self._buffer) if size < 0 else self._at + size
        chunk = bytes(self._buffer[self._at : stop])
        self._at += len(chunk)
        return chunk

    def readline(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)


def _load_zip(buffer: memoryview) -> Any:
    """torch 1.6 and later: a zip archive of data.pkl and one stored file per storage."""
    archive = zipfile.ZipFile(_File(buffer))
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise pickle.UnpicklingError("a zip archive, but not of torch")
    if "constants.pkl" in names:
        raise Refused("a TorchScript program")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise Refused("big-endian numbers")

    def find_storage(saved: tuple) -> _Storage:
        _, dtype, key, _, count = saved
        record = archive.getinfo(names[f"data/{key}"])
        if record.compress_type != zipfile.ZIP_STORED:
            raise Refused("compressed storages")
        header = record.header_offset
        name_size, extra_size = np.frombuffer(buffer[header + 26 : header + 30], "<u2").tolist()
        start = header + 30 + name_size + extra_size
        content = buffer[start : start + record.file_size]
        if len(content) != record.file_size or record.file_size < count * dtype.itemsize:
            raise EOFError(f"storage {key} is cut short")
        return _Storage(dtype, record.file_size, content)

    return _Unpickler(io.BytesIO(archive.read(names["data.pkl"])), find_storage).load()


def _load_legacy(buffer: memoryview) -> Any:
    """Before torch 1.6: five pickles one after the other, then the bytes of every storage behind its 8-byte length."""
    file = _File(buffer)
    storages: dict[str, _Storage] = {}
    views: list[tuple[_Storage, _Storage, int]] = []

    def find_storage(saved: tuple) -> _Storage:
        _, dtype, key, _, count, view = saved
        root = storages.setdefault(key, _Storage(dtype, count * dtype.itemsize))
        if view is None:
            return root
        part = _Storage(dtype, view[2] * dtype.itemsize)
        views.append((part, root, view[1] * dtype.itemsize))
        return part

    def refuse(saved: tuple) -> _Storage:
        raise Refused("a storage before the header's end")

    if _Unpickler(file, refuse).load() != 0x1950A86A20F9469CFC6C:
        raise pickle.UnpicklingError("not a torch file")
    for _ in ("protocol version", "system"):
        _Unpickler(file, refuse).load()
    saved = _Unpickler(file, find_storage).load()
    keys = _Unpickler(file, refuse).load()
    at = file.tell()
    for key in keys:
        storage = storages[key]
        storage.buffer = buffer[at + 8 : at + 8 + storage.nbytes]
        if len(storage.buffer) != storage.nbytes:
            raise EOFError(f"storage {key} is cut short")
        at += 8 + storage.nbytes
    for part, root, offset in views:
        part.buffer = root.buffer[offset : offset + part.nbytes]
    return saved


def _arrays(value: Any) -> Any:
    if isinstance(value, _Tensor):
        return value.array()
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_arrays(item) for item in value]
    return value
