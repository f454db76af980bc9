"""Weight files of the PyTorch world: reading `.pth`, `.pt` and `.safetensors`, finding the weights inside, writing."""

import collections
import dataclasses
import json
import mmap as memory_map
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert import darknet
from convert.differences import listed
from convert.layout import dense, handed_out
from convert.pointers import refuse_pointer
from convert.reparametrised import computed
from convert.stand_ins import stand_ins
from jaxzoo.errors import UsageError

# Where training scripts keep weights inside a checkpoint; found at any depth, `ema.module` as well as `state_dict`.
# fmt: off
_WEIGHTS = frozenset({
    "state_dict", "model", "model_state_dict", "model_state", "ema", "ema_state_dict", "ema_model", "model_ema",
    "model_ema_state_dict", "state_dict_ema", "shadow_params", "params", "params_ema", "net", "network",
    "net_state_dict", "module", "weights", "teacher", "student", "generator", "discriminator", "backbone",
    "encoder", "decoder",
})
# fmt: on
# Where they keep tensors that are no weights.
_OTHERS = ("optim", "lr_", "sched", "scaler", "amp", "rng", "arg", "hyper", "loop", "callback", "metric", "loss")

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}


@dataclasses.dataclass
class Contents:
    """The weights in a file, and how they lay there."""

    path: Path
    tensors: dict[str, np.ndarray]
    nesting: str  # dotted keys that led to them: "", "state_dict", "ema.module"
    prefix: str  # taken off every name: "", "module.", "module._orig_mod."
    dropped: list[str]  # entries beside the tensors that are no weights, such as n_averaged


def read(path: str | Path, *, mmap: bool = False) -> dict[str, np.ndarray]:
    """Reads the weights of a `.pth`, `.pt` or `.safetensors` file, by their names in the PyTorch module.

    Weights nested under `state_dict`, `model`, `ema` and the like are found; the prefixes of `DataParallel` (`module.`)
    and `torch.compile` (`_orig_mod.`) are taken off. Where a file holds several sets of weights, `file.pth#model_ema`
    chooses one. What `weight_norm`, `spectral_norm` and pruning keep in pieces is the weight that torch computes.
    Every tensor keeps its dtype (bfloat16 as `ml_dtypes.bfloat16`). torch reads its own files, with
    `weights_only=True`, so no code in them is run; safetensors are read without it. Warns of NaN and infinity.

    Args:
      path: the file, perhaps with `#key`.
      mmap: return views of the mapped file, which then has to stay as it is and cannot be written to, not copies.

    Raises:
      UsageError: not there, empty, cut short, no checkpoint, holding code, holding no weights or several sets of them;
        or torch is needed and not installed.
    """
    tensors = contents(path).tensors
    return {name: handed_out(array) if mmap else array.copy() for name, array in tensors.items()}


def contents(path: str | Path) -> Contents:
    """As `read`, with the place of the weights in the file; the arrays are views of the mapped file."""
    path, key = _split_key(path)
    head = _head(path)
    if darknet.is_darknet(path):
        raise UsageError(
            f"{path} is a Darknet file, which has no names: convert.load and to-flax read it with its model"
        )
    loaded = _load_safetensors(path) if head.endswith(b"{") else _load_torch(path, zipped=head.startswith(b"PK"))
    nesting, entries, part = _choose(path, key, loaded)
    tensors, prefix = _unwrapped({name: _array(path, name, v) for name, v in entries.items() if hasattr(v, "ndim")})
    if part:
        below = _below(path, part, tensors)
        tensors, inner = _unwrapped(
            {name.removeprefix(below): t for name, t in tensors.items() if name.startswith(below)}
        )
        prefix += below + inner
    warn_not_finite(path, tensors)
    tensors = {name.replace("._orig_mod.", "."): value for name, value in tensors.items()}  # compiled submodules
    tensors = computed(tensors)
    dropped = [name for name in entries if not name.startswith(prefix) or not hasattr(entries[name], "ndim")]
    return Contents(path, tensors, nesting, prefix, dropped)


def _unwrapped(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """The tensors without the prefix that wrappers prepend to all names; and that prefix."""
    prefix = ""
    while True:
        rest = [name for name in tensors if name != "n_averaged"]  # of torch.optim.swa_utils.AveragedModel
        strip = next((p for p in ("module.", "_orig_mod.") if rest and all(n.startswith(p) for n in rest)), None)
        if strip is None:
            return tensors, prefix
        tensors = {name.removeprefix(strip): tensors[name] for name in rest}
        prefix += strip


def _below(path: Path, part: str, tensors: Mapping[str, np.ndarray]) -> str:
    """The prefix of the tensors that a person means by a part of it: by all of it, or by its end.

    Raises UsageError: there is none, or there are several.
    """
    prefixes = dict.fromkeys(name[: end + 1] for name in tensors for end, letter in enumerate(name) if letter == ".")
    wanted = part.strip(".") + "."
    found = [wanted] if wanted in prefixes else [p for p in prefixes if p.endswith(f".{wanted}")]
    if len(found) == 1:
        return found[0]
    names = (p.removesuffix(".") for p in found) if found else (p[:-1] for p in prefixes if p.count(".") == 1)
    choices = listed((f"{path.name}#{name}" for name in names), 8)
    if found:
        raise UsageError(f"{path} holds several parts {part!r}; name one of {choices}")
    raise UsageError(f"{path} holds no weights under {part!r}; it holds {choices or 'one set of weights only'}")


def write(
    path: str | Path, tensors: Mapping[str, np.ndarray], versions: Mapping[str, int] | None = None, header: bytes = b""
) -> None:
    """Writes a state_dict as `.pth`/`.pt` (needs torch), `.safetensors` or Darknet's `.weights`, by the file's ending.

    Dtypes are kept.

    Args:
      path: the file.
      tensors: arrays by torch key.
      versions: of the layout, as `rules.versions` gives them; only torch's own files have a place for these.
      header: of a Darknet file, as one that was read had it.

    Raises:
      UsageError: the file exists, its ending is another, torch is missing, or the place cannot be written to.
    """
    path = Path(path)
    check_output(path)
    tensors = {name: dense(value) for name, value in tensors.items()}
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == darknet.ENDING:
            darknet.write(partial, tensors, header)
        elif path.suffix == ".safetensors":
            from safetensors.numpy import save_file

            save_file(tensors, partial, metadata={"format": "pt"})
        else:
            import torch

            torch.save(torch_state_dict(tensors, versions or {}), partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def check_output(path: Path) -> None:
    """Raises UsageError unless a state_dict can be written to `path`."""
    if path.suffix not in (".pth", ".pt", ".safetensors", darknet.ENDING):
        raise UsageError(f"cannot tell the format of {path}: end its name in .pth, .pt or .safetensors")
    if path.exists():
        raise UsageError(f"{path} exists already: remove it or choose another name")
    if path.suffix in (".pth", ".pt"):
        require_torch(f"writing {path.suffix} files")


def require_torch(purpose: str, *others: str) -> None:
    """Raises UsageError unless torch, and these other packages, can be imported."""
    try:
        for package in ("torch", *others):
            import_module(package)
    except (ImportError, RuntimeError):  # the latter when torchvision was built for another torch
        raise UsageError(f"{purpose} needs PyTorch: pip install 'jaxzoo-vision[torch]'") from None


def torch_state_dict(tensors: Mapping[str, np.ndarray], versions: Mapping[str, int]) -> collections.OrderedDict:
    """A state_dict for torch's `load_state_dict`: tensors, and versions of the layout where modules ask for them."""
    state_dict = collections.OrderedDict((name, to_torch(value)) for name, value in tensors.items())
    state_dict._metadata = {path: {"version": version} for path, version in versions.items()}
    return state_dict


def to_torch(array: np.ndarray):
    """A tensor of the same bits; torch knows no ml_dtypes, so those cross as integers."""
    import torch

    array = array if array.flags.writeable else array.copy()
    if array.dtype.kind != "V" and array.dtype.type.__module__ == "numpy":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(getattr(torch, array.dtype.name))


def from_torch(tensor) -> np.ndarray:
    """An array of the same bits, in the same memory where that is the CPU's. Raises TypeError if it cannot be one."""
    import torch

    tensor = tensor.detach().cpu()
    kind = getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."), None)
    if kind is None:
        return tensor.resolve_conj().resolve_neg().numpy()
    return tensor.view(getattr(torch, f"int{8 * tensor.itemsize}")).numpy().view(kind)


def _split_key(path: str | Path) -> tuple[Path, str | None]:
    name, mark, key = str(path).rpartition("#")
    return (Path(name), key) if mark and not Path(path).exists() else (Path(path), None)


def _head(path: Path) -> bytes:
    """The first nine bytes, which tell the formats apart."""
    if path.is_dir():
        raise UsageError(f"{path} is a directory; a weights file was expected")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise UsageError(f"{path} is empty")
    refuse_pointer(path)
    return head


def _load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """An 8-byte length, a JSON header of that length, and the tensors' bytes."""
    with path.open("rb") as file:
        buffer = memoryview(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ))
    try:
        start = 8 + int.from_bytes(buffer[:8], "little")
        header = json.loads(bytes(buffer[8:start]))
        header.pop("__metadata__", None)
        tensors = {}
        for name, info in header.items():
            data = buffer[start:][slice(*info["data_offsets"])]
            tensors[name] = np.frombuffer(data, _SAFETENSORS[info["dtype"]]).reshape(info["shape"])
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is cut short or damaged: its safetensors header does not fit its data") from error


def _load_torch(path: Path, zipped: bool) -> Any:
    require_torch(f"reading {path}")
    import torch

    if torch.__version__ < (2, 10):
        raise UsageError(f"torch {torch.__version__} may run code in {path}: pip install 'torch>=2.10'")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins()):
            warnings.simplefilter("ignore")  # a file that torch warns of is read or refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file raises anything
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise UsageError(
                f"{path} holds {asked[1]}, not only tensors; rebuilding that could run code from the file, so nothing "
                "was run: save it again as torch.save(model.state_dict(), path)"
            ) from None
        if "TorchScript" in str(error):
            raise UsageError(f"{path} is a TorchScript program: save the state_dict() of the model instead") from None
        raise UsageError(
            f"{path} is neither a torch file nor safetensors, or it is cut short or damaged; nothing in it was run"
        ) from error


def _array(path: Path, name: str, value: Any) -> np.ndarray:
    try:
        return value if isinstance(value, np.ndarray) else from_torch(value)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UsageError(f"{path} holds a {value.layout} {value.dtype} tensor {name}, which NumPy cannot") from error


def _choose(path: Path, key: str | None, loaded: Any) -> tuple[str, dict[str, Any], str]:
    """The one set of weights in a loaded file, the dotted keys that lead to it, and the rest of `key` inside it."""
    found = dict(_candidates(loaded))
    if not found:
        kind = "" if isinstance(loaded, dict) else f": it is a {type(loaded).__name__}"
        raise UsageError(f"{path} holds no named tensors{kind}")
    if key in found:
        return key, found[key], ""
    for name in sorted(found, key=len, reverse=True):
        if key and name and key.startswith(f"{name}."):
            return name, found[name], key.removeprefix(f"{name}.")
    likely = {name: value for name, value in found.items() if name.rpartition(".")[2] in _WEIGHTS}
    likely = likely or ({"": found[""]} if "" in found else found)
    if len(likely) > 1:
        choices = listed((f"{path.name}#{name}" for name in found if name), 8)
        if key:
            raise UsageError(f"{path} holds no weights under {key!r}; it holds {choices}")
        raise UsageError(f"{path} holds several sets of weights; name one of {choices}")
    nesting, entries = next(iter(likely.items()))
    return nesting, entries, key or ""


def _candidates(value: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return
    if any(getattr(item, "ndim", 0) for item in value.values()):
        yield at, value
    for key, item in value.items():
        if not key.lower().startswith(_OTHERS):
            yield from _candidates(item, f"{at}.{key}" if at else key)


def warn_not_finite(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Warns of tensors of a file that hold NaN or infinity."""
    bad = [name for name, array in tensors.items() if not _is_finite(array)]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        warnings.warn(f"{path} holds NaN or infinity in {', '.join(bad[:5])}{more}", stacklevel=4)


def _is_finite(array: np.ndarray) -> bool:
    if array.dtype.kind in "biu" or not array.size:
        return True
    with np.errstate(all="ignore"):
        total = array.sum(dtype=np.result_type(array.dtype, np.float32))  # one pass, and no array of booleans
        return bool(np.isfinite(total) or np.isfinite(array).all())
