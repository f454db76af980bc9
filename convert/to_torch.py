"""`python -m convert to-torch`: from a converted directory or a training run back to PyTorch."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


def to_torch(
    from_: Annotated[Path, tyro.conf.arg(name="from", aliases=["--weights"])],
    out: Path,
    dialect: Literal["timm"] | None = None,
) -> None:
    """Writes a state_dict that torchvision loads with strict=True: its keys, its layouts, the dtypes that came in.

    Args:
        from_: A converted directory, a training checkpoint, or the folder of a training run (its best, else its last
            checkpoint); RUN#ema is the moving average of its weights.
        out: File to write, ending in .pth, .pt or .safetensors, or in .weights for Darknet; it must not exist.
        dialect: Naming of the tensors: timm's, where timm has the same network. Default: the reference's.
    """
    from convert import files
    from convert.names import in_dialect
    from convert.sources import read_weights
    from convert.store import checkpoint_in, part_of, read_manifest

    files.check_output(out)
    directory, _ = part_of(from_)
    model = read_manifest(checkpoint_in(directory))["model"]
    found = read_weights(model, from_)
    if dialect:
        found = dataclasses.replace(found, tensors=in_dialect(model, dialect, found.tensors), versions={})
    files.write(out, found.tensors, found.versions, found.header)
    names = f" by {dialect}'s names" if dialect else ""
    print(f"{out}: {model}, {len(found.tensors)} tensors{names}, from {found.path}")
