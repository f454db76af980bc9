"""Checkpoint directories: Orbax arrays beside a manifest that knows the digest of every file.

    swin_t/
        manifest.json    written last and atomically: what this is, and the SHA-256 of every file
        arrays/          an Orbax PyTree directory holding a flat {"model/features.0.0.kernel": array, ...}

Orbax reads a file with a flipped bit without complaint, so `load` compares digests before it returns anything.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from convert.layout import dense
from convert.pointers import refuse_pointer
from jaxzoo.errors import UsageError

FORMAT = 1
MANIFEST = "manifest.json"
ARRAYS = "arrays"


def handler():
    """The Orbax handler of every checkpoint, here and in the trainer: zarr files as they are in memory.

    Weights do not compress, and OCDBT's single file costs a second copy in memory and twice the time.
    NumPy arrays are not copied first: leave them alone until an asynchronous save has finished.
    """
    import jax
    import orbax.checkpoint as ocp
    from orbax.checkpoint import type_handlers

    # Said at every save without OCDBT, and when a save fails beside the error that is raised: of no use to anybody.
    logging.getLogger("absl").addFilter(_is_news)
    registry = type_handlers.create_type_handler_registry(
        (np.ndarray, type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, type_handlers.ArrayHandler()),
    )
    return ocp.PyTreeCheckpointHandler(
        use_ocdbt=False,
        use_zarr3=True,
        use_compression=False,
        type_handler_registry=registry,
        multiprocessing_options=_alone(),
    )


def _alone():
    """Orbax would have all processes of `jax.distributed` read and write together; here each does so alone."""
    import jax
    from orbax.checkpoint.options import MultiprocessingOptions

    if not jax.distributed.is_initialized():
        return MultiprocessingOptions()
    me = jax.process_index()
    return MultiprocessingOptions(primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}")


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in str(record.msg) for text in ("Skipping merge of OCDBT", "_SignalingThread"))


def save(directory: str | Path, arrays: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Writes `arrays` (NumPy or JAX, any dtype, not empty) and `manifest` to a new directory.

    It is written beside its final place and renamed when complete, so an interrupted save leaves nothing behind under
    the name `directory`.

    Raises:
        UsageError: the directory exists, or its parent cannot be written to.
    """
    import orbax.checkpoint as ocp

    directory = Path(directory).absolute()
    refuse_existing(directory)
    empty = [key for key, value in arrays.items() if np.size(value) == 0]
    if empty:
        raise UsageError(f"cannot store arrays without elements: {', '.join(empty)}")
    # Orbax would write a transposed array at a third of the speed.
    arrays = {key: v if hasattr(v, "addressable_shards") else dense(np.asarray(v)) for key, v in arrays.items()}
    partial = directory.with_name(f".{directory.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        with ocp.Checkpointer(handler(), multiprocessing_options=_alone()) as checkpointer:
            checkpointer.save(partial / ARRAYS, args=ocp.args.PyTreeSave(arrays))
        write_manifest(partial, manifest)
        refuse_existing(directory)
        partial.rename(directory)
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load(
    directory: str | Path, *, prefix: str = "", verify: bool = True
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the arrays whose key starts with `prefix` (which is taken off) and the manifest.

    Arrays are NumPy's, with the dtype they were saved in, whatever JAX's x64 mode.

    Raises:
        UsageError: no checkpoint there; written by a newer jaxzoo; a file is missing or differs from its digest.
    """
    import orbax.checkpoint as ocp

    directory = Path(directory).absolute()
    manifest = read_manifest(directory)
    # Orbax keeps the arrays of key "a/b" under arrays/a/b, and what concerns them all right under arrays/.
    files = {
        name: digest
        for name, digest in manifest["files"].items()
        if name.startswith(f"{ARRAYS}/{prefix}") or name.count("/") == 1
    }
    if verify:
        _verify(directory, files)
    suffix = "/zarr.json"
    keys = [name[len(ARRAYS) + 1 : -len(suffix)] for name in files if name.endswith(suffix)]
    args = ocp.args.PyTreeRestore(
        item=dict.fromkeys(keys, 0),
        restore_args=dict.fromkeys(keys, ocp.RestoreArgs(restore_type=np.ndarray)),
        partial_restore=True,
    )
    try:
        with ocp.Checkpointer(handler(), multiprocessing_options=_alone()) as checkpointer:
            restored = checkpointer.restore(directory / ARRAYS, args=args)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"checkpoint {directory} is damaged: {error}") from error
    return {key[len(prefix) :]: value for key, value in restored.items()}, manifest


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """The manifest alone, its own digest checked.

    Raises:
        UsageError: as `load`.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UsageError(f"no checkpoint directory at {directory}")
    if (directory / MANIFEST).is_file():
        refuse_pointer(directory / MANIFEST)
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        whole = manifest.pop("sha256") == _digest_of(manifest)
    except FileNotFoundError:
        raise UsageError(
            f"{directory} holds no {MANIFEST}: it is no checkpoint of jaxzoo, or one whose writing was interrupted"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise UsageError(f"checkpoint {directory} is damaged: {MANIFEST} is not as it was written")
    if manifest["format"] != FORMAT:
        raise UsageError(
            f"{directory} has format {manifest['format']}, and this jaxzoo reads format {FORMAT}: update it"
        )
    return manifest


def write_manifest(directory: str | Path, manifest: Mapping[str, Any], files: Mapping[str, str] | None = None) -> None:
    """Completes a checkpoint directory: writes manifest.json atomically, with the digests of its `files` if known."""
    directory = Path(directory)
    content = {"format": FORMAT, **manifest, "files": digests(directory) if files is None else files}
    content = json.loads(json.dumps(content))  # tuples become lists now, as they will be when read back, for the digest
    text = json.dumps(content | {"sha256": _digest_of(content)}, indent=1)
    partial = directory / f".{MANIFEST}.partial"
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(directory / MANIFEST)


def digests(directory: str | Path) -> dict[str, str]:
    """SHA-256 of every file under `directory`/arrays, by its path relative to `directory`."""
    directory = Path(directory)
    names = [str(path.relative_to(directory)) for path in sorted((directory / ARRAYS).rglob("*")) if path.is_file()]
    return dict(zip(names, _hash(directory / name for name in names), strict=True))


def checkpoint_in(path: Path) -> Path:
    """The checkpoint directory that `path` means: itself, or a run's best checkpoint, or else its last."""
    if (path / MANIFEST).is_file():
        return path
    if (path / "best" / MANIFEST).is_file():
        return path / "best"
    found = [m.parent for folder in (path / "checkpoints", path) for m in folder.glob(f"*/{MANIFEST}")]
    steps = [folder for folder in found if folder.name.isdigit()]
    if not steps:
        raise UsageError(f"{path} is neither a converted model nor a training run: it holds no checkpoint")
    return max(steps, key=lambda step: int(step.name))


def part_of(path: Path) -> tuple[Path, str]:
    """`RUN#ema` as the folder RUN and `ema`; any other path as itself and ""."""
    folder, _, part = str(path).rpartition("#")
    return (Path(folder), part) if folder and not path.exists() and Path(folder).is_dir() else (path, "")


def refuse_existing(path: Path) -> None:
    """Raises UsageError if there is something at `path` already."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already: remove it or choose another place")


def file_digest(path: str | Path) -> str:
    """SHA-256 of one file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(paths: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib releases the GIL
        return list(pool.map(file_digest, paths))


def _verify(directory: Path, files: Mapping[str, str]) -> None:
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise UsageError(f"checkpoint {directory} is damaged: missing {', '.join(missing[:3])}{_more(missing)}")
    found = zip(files, _hash(directory / name for name in files), strict=True)
    changed = [name for name, digest in found if digest != files[name]]
    for name in changed:
        refuse_pointer(directory / name)
    if changed:
        raise UsageError(
            f"checkpoint {directory} is damaged: {', '.join(changed[:3])}{_more(changed)} "
            "is not as it was written (SHA-256 differs)"
        )


def _more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
