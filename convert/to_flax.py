"""`python -m convert to-flax`: from PyTorch's weights to a directory for Flax."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal


def to_flax(
    model: str,
    weights: str,
    out: Path,
    head: Literal["strict", "skip"] = "strict",
    num_classes: int | None = None,
    match: Literal["names", "order"] = "names",
    image_size: int | None = None,
) -> None:
    """Converts PyTorch weights to an Orbax directory with a manifest. Every tensor keeps its dtype.

    Args:
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: A .pth, .pt or .safetensors file (file.pth#key where it holds several sets of weights), with the
            reference's names or timm's; Darknet's .weights; or published weights of torchvision or timm, such as
            IMAGENET1K_V1 or DEFAULT.
        out: Directory to write; it must not exist.
        head: What to do with a classifier of another size: refuse it, or skip it and initialise it afresh.
        num_classes: Number of classes. Default: as in the weights.
        image_size: Image size in pixels, for a model that is built for one; at another size than the weights' own the
            position embedding is resampled. Default: the weights' own.
        match: How to pair tensors with the model's: by their names, or by order and shape, which prints the pairs.
    """
    import jaxzoo
    from convert import rules, store
    from convert.fitting import fit_weights
    from convert.loading import fill_fresh
    from convert.sources import read_weights
    from convert.weights import preprocess_of
    from jaxzoo.preprocess import to_dict

    store.refuse_existing(out)
    size = {} if image_size is None else {"image_size": image_size}
    known = size if num_classes is None else size | {"num_classes": num_classes}
    found = read_weights(model, weights, match=match, arguments=known)
    width = max((len(ours) for ours, _ in found.pairs), default=0)
    for ours, theirs in found.pairs:
        print(f"{ours:{width}} ← {theirs}")
    with ThreadPoolExecutor(1) as pool:
        source = pool.submit(found.source)  # hashing a large file takes a while
        fit = fit_weights(model, found, num_classes=num_classes, head=head, **size)
        fit.warn(stacklevel=1)
        arrays = rules.flax_arrays(fit.model, fit.tensors, skip=fit.fresh, copy=False)
        if fit.fresh:
            rules.load_state_dict(fit.model, fit.tensors, skip=fit.fresh)
            arrays |= fill_fresh(fit.model, model, fit.arguments, seed=0)
    manifest = {
        "model": model,
        "arguments": fit.arguments,
        "classes": None if fit.fresh else found.classes,
        "preprocess": to_dict(preprocess_of(model, found, fit.arguments, fit.model)),
        "source": source.result(),
        "jaxzoo": jaxzoo.__version__,
        **({"darknet": found.header.hex()} if found.header else {}),
    }
    store.save(out, {f"model/{path}": array for path, array in arrays.items()}, manifest)
    classes = f", {fit.arguments['num_classes']} classes" if "num_classes" in fit.arguments else ""
    names = f" by {found.dialect}'s names" if found.dialect else ""
    numbers = sum(a.size for a in arrays.values())
    print(f"{out}: {model}{classes}, {len(arrays)} tensors{names}, {numbers:,} numbers")
