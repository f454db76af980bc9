"""Stage `parity`: outputs in float32 against torch's on the same device, measured by torch's in float64."""

import importlib.util
from collections import defaultdict
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxzoo
from tests.gpu.child import Conditions


def names(dry_run: bool) -> list[str]:
    """The smallest model of each family whose reference is installed, the smallest first."""
    families = defaultdict(list)
    for name in jaxzoo.list_models():
        card = jaxzoo.card(name)
        if importlib.util.find_spec(card.twin.split(".")[0].split(":")[0]):
            families[card.builder.__module__].append((jaxzoo.model_info(name).parameters, name))
    smallest = sorted(map(min, families.values()))
    return [name for _, name in smallest][: 1 if dry_run else None]


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    import torch

    from convert.rules import load_state_dict
    from convert.twins import arrays, build_twin, randomise
    from tests.parity import ladder

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda" if conditions.gpu else "cpu")
    arguments = ladder.with_auxiliary_head(name)
    torch.manual_seed(0)
    twin = build_twin(jaxzoo.card(name), **arguments)
    randomise(twin, seed=0)
    model = ladder.abstract_model(name, **arguments)
    load_state_dict(model, arrays(twin))
    graph, state = nnx.split(model)
    side = jaxzoo.card(name).input_size
    x = ladder.images((side, side), 2).astype(np.float32)

    def theirs(dtype: torch.dtype) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = twin.to(device, dtype)(ladder.as_torch(x, dtype).to(device))
        return {key: ladder.as_ours(y.cpu()) for key, y in ladder.outputs(outputs).items()}

    with jax.default_matmul_precision("highest"):
        outputs = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, jnp.asarray(x))
    ours = {key: np.asarray(y) for key, y in ladder.outputs(outputs).items()}
    single, reference = theirs(torch.float32), theirs(torch.float64)
    (error, where), (torchs, _) = ladder.worst(ours, reference), ladder.worst(single, reference)
    within = error <= min(1e-4, 4 * torchs)  # the parity suite's level 6
    yield {"size": side, "error": error, "torch error": torchs, "where": where, "within": within}
