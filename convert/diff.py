"""`python -m convert diff`: where a model leaves its PyTorch twin, layer by layer."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from jaxzoo.registry import ModelCard

# Of the largest magnitude in a layer's output. Rounding stays below; a wrong architecture is far above.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
WHOLE = "(model)"


@dataclasses.dataclass
class Layer:
    """One submodule's output on both sides."""

    path: str
    shape: tuple[int, ...]
    error: float  # largest absolute difference; infinite where the shapes differ
    scale: float  # largest magnitude on torch's side
    note: str = ""

    @property
    def relative(self) -> float:
        return self.error / self.scale if self.scale else self.error


def diff(
    model: str,
    weights: str | None = None,
    image: Path | None = None,
    size: int | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    seed: int = 0,
    match: Literal["names", "order"] = "names",
) -> int:
    """Runs a model and its PyTorch twin on the same input and compares every layer; exit code 1 if they differ.

    Args:
        model: Model, such as resnet50; `jaxzoo list` shows all.
        weights: Weights for both sides, as for to-flax. Default: random.
        image: Input image, which goes through the model's preprocessing. Default: random numbers.
        size: Height and width of the input, in pixels. Default: the model's own.
        dtype: float64 tells a wrong architecture from rounding; float32 shows the difference in practice.
        seed: Seed of the random weights and input.
        match: How to pair tensors, as for to-flax.
    """
    import jax

    from jaxzoo import card

    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        twin, ours, arguments = _both(model, weights, size, dtype, seed, match)
        inputs = _inputs(card(model), ours, image, size or arguments.get("image_size"), seed)
        layers, alone = compare(
            twin, ours, jax.tree.map(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, inputs)
        )
    return _report(layers, alone, TOLERANCE[dtype])


def compare(twin: Any, model: Any, inputs: Any) -> tuple[list[Layer], list[str]]:
    """Compares the outputs of all submodules that a torch module and an NNX module have in common.

    Args:
      twin: a torch module, in the dtype of the inputs.
      model: the NNX module.
      inputs: its input, images (N, H, W, C) or another pytree of arrays, channels last; a tuple is several arguments.

    Returns:
      The layers in the order in which torch finished them, the whole model last under ""; and the paths that only one
      side ran.
    """
    import jax
    import numpy as np
    import torch
    from flax import nnx

    from jaxzoo import inspect

    theirs = {}
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)

    def as_torch(array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.movedim(-1, 1).contiguous() if tensor.ndim > 2 else tensor

    def keep(path: str):
        def hook(module, inputs, output):  # a copy, for a ReLU in place may follow
            theirs.pop(path, None)
            theirs[path] = [t.detach().numpy().copy() for t in _leaves(output) if isinstance(t, torch.Tensor)]

        return hook

    hooks = [module.register_forward_hook(keep(path)) for path, module in twin.named_modules()]
    try:
        with torch.no_grad():
            twin(*(jax.tree.map(as_torch, argument) for argument in arguments))
    finally:
        for hook in hooks:
            hook.remove()
    graph, state = nnx.split(model)
    ours = jax.jit(lambda state, *xs: inspect.outputs(nnx.merge(graph, state), *xs))(state, *arguments)
    ours = {path: [np.asarray(leaf) for leaf in _leaves(output)] for path, output in ours.items()}
    layers = []
    for path in theirs:
        pairs = list(zip(theirs[path], ours.get(path, ()), strict=False))
        found = [_layer(f"{path}[{i}]" if len(theirs[path]) > 1 else path, *pair) for i, pair in enumerate(pairs)]
        # Several arrays that the two sides put together differently are those of the modules inside.
        if not path or len(found) < 2 or all(layer.error < float("inf") for layer in found):
            layers += found
    return layers, sorted(theirs.keys() ^ ours.keys())


def _leaves(output: Any) -> Iterator[Any]:
    """The arrays of an output, mappings by sorted key, on both sides alike."""
    if isinstance(output, dict):
        output = [output[key] for key in sorted(output)]
    if isinstance(output, list | tuple):
        for item in output:
            yield from _leaves(item)
    elif output is not None:
        yield output


def _layer(path: str, theirs: "np.ndarray", ours: "np.ndarray") -> Layer:
    import numpy as np

    theirs, ours = (side.astype(float) if side.dtype.kind in "bi" else side for side in (theirs, ours))
    scale = float(np.abs(theirs).max(initial=0))
    layouts = [theirs, *([np.moveaxis(theirs, 1, -1)] if theirs.ndim > 2 else [])]  # as it is, and channels last
    errors = [float(np.abs(a - ours).max(initial=0)) for a in layouts if a.shape == ours.shape]
    if not errors:
        return Layer(path, ours.shape, float("inf"), scale, f"torch has {layouts[-1].shape}")
    return Layer(path, ours.shape, min(errors), scale)


def _both(
    name: str, weights: str | None, size: int | None, dtype: str, seed: int, match: str
) -> tuple[Any, Any, dict[str, Any]]:
    """The twin and the model, with the same weights, in this dtype; and the arguments that built them."""
    import torch

    from convert import rules, twins
    from convert.files import torch_state_dict
    from convert.fitting import fit_weights
    from convert.loading import fill_fresh
    from convert.shapes import cast
    from convert.sources import read_weights
    from convert.weights import Weights
    from jaxzoo import card
    from jaxzoo.registry import argument_names

    arguments = {"image_size": size} if size and "image_size" in argument_names(name) else {}
    torch.manual_seed(seed)
    if weights is None:
        twin = twins.build_twin(card(name), **arguments)
        twins.randomise(twin, seed)
        found = Weights(Path("twin"), twins.arrays(twin))
        fit = fit_weights(name, found, **arguments)
    else:
        found = read_weights(name, weights, match=match)
        fit = fit_weights(name, found, **arguments)
        twin = twins.build_twin(card(name), **fit.arguments)
    rules.load_state_dict(cast(fit.model, dtype), fit.tensors)
    fill_fresh(fit.model, name, fit.arguments, seed)
    twin.to(getattr(torch, dtype))
    twin.load_state_dict(torch_state_dict(fit.tensors, rules.versions(fit.model)))
    return twin, fit.model, fit.arguments


def _inputs(card: "ModelCard", model: Any, image: Path | None, size: int | None, seed: int) -> Any:
    import jax
    import numpy as np

    import jaxzoo

    if image is None:
        generator = np.random.default_rng(seed)
        return jax.tree.map(lambda leaf: generator.standard_normal(leaf.shape), card.example_inputs(2, size))
    preprocess = getattr(model, "transform", card.preprocess)
    return preprocess.at(size or preprocess.side)(jaxzoo.read_image(image))[None]


def _report(layers: list[Layer], alone: list[str], tolerance: float) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    wrong = [layer for layer in layers if not layer.relative <= tolerance]  # NaN is wrong too
    table = Table(Column("layer", overflow="fold"), "shape", "max error", "relative", "")
    for layer in layers:
        first = wrong and layer is wrong[0]
        mark = "← first" if first else "differs" if layer in wrong else ""
        style = "bold red" if first else "red" if layer in wrong else None
        error, relative = (f"{value:.1e}" for value in (layer.error, layer.relative))
        note = ", ".join(filter(None, (mark, layer.note)))
        table.add_row(escape(layer.path or WHOLE), str(layer.shape), error, relative, note, style=style)
    console = Console()
    console.print(table)
    if alone:
        more = f" and {len(alone) - 5} more" if len(alone) > 5 else ""
        console.print(f"run on one side only: {', '.join(alone[:5])}{more}", style="dim", highlight=False)
    if wrong:
        name = wrong[0].path or WHOLE
        print(f"{len(wrong)} of {len(layers)} layers differ by more than {tolerance:g}; the first is {name}")
        return 1
    print(f"all {len(layers)} layers agree to {max(layer.relative for layer in layers):.1e}")
    return 0
