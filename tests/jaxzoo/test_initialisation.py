"""Models start as their PyTorch twins do: every parameter is drawn from the same distribution."""

import numpy as np
import pytest
import torch

import jaxzoo
from convert.rules import state_dict
from convert.twins import build_twin

SIGMAS = 6  # between two samples: so far apart that none of a hundred thousand comparisons gets there by chance
ENOUGH = 100  # numbers, for their deviation to be near their distribution's


@pytest.mark.full
@pytest.mark.parametrize("name", jaxzoo.list_models())
def test_a_model_starts_as_its_twin(name):
    check(name)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_residual_branches_start_at_zero_when_asked(name):
    check(name, zero_init_residual=True, num_classes=3)


def check(name: str, **arguments) -> None:
    """Every parameter has its twin's mean and deviation, every buffer its numbers."""
    torch.manual_seed(1)
    module = build_twin(jaxzoo.card(name), **arguments)
    twin = {key: p.detach().numpy() for key, p in module.named_parameters()}
    ours = state_dict(jaxzoo.create_model(name, seed=1, **arguments))
    for key in module.state_dict().keys() - twin.keys():
        np.testing.assert_allclose(ours[key], module.state_dict()[key].numpy(), rtol=1e-6, err_msg=key)
    alike = {}  # tensors too small to say much, together with those of the same shape and end of the name
    for key, array in twin.items():
        alike.setdefault((key.rpartition(".")[2], array.shape), []).append(key)
    samples = {key: ([ours[key]], [twin[key]]) for key in twin} | {
        f"all {end} {shape}": ([ours[k] for k in keys], [twin[k] for k in keys])
        for (end, shape), keys in alike.items()
        if len(keys) > 1
    }
    found = {key: difference(*(np.stack(x).astype(np.float64).ravel() for x in both)) for key, both in samples.items()}
    assert {key: words for key, words in found.items() if words} == {}


def difference(ours: np.ndarray, twin: np.ndarray) -> str:
    """What tells two samples apart, in words; nothing if they can be of one distribution."""
    if np.ptp(twin) == 0 or np.ptp(ours) == 0:
        return "" if np.array_equal(ours, twin) or twin.size == 1 else f"{ours[:2]} ..., not {twin[:2]} ..."
    if twin.size < ENOUGH:
        return ""
    for what, a, b in (("mean", ours, twin), ("mean magnitude", np.abs(ours), np.abs(twin))):
        if abs(a.mean() - b.mean()) > SIGMAS * np.sqrt((a.var() + b.var()) / a.size):
            return f"{what} {a.mean():.3g}, not {b.mean():.3g}"
    a, b = ours.std(), twin.std()
    spread = [((x - x.mean()) ** 2).std() / (2 * x.std()) for x in (ours, twin)]  # standard errors, times √n
    return f"deviation {a:.3g}, not {b:.3g}" if abs(a - b) > SIGMAS * np.hypot(*spread) / np.sqrt(twin.size) else ""


def test_another_distribution_is_told_apart():
    draws = np.random.default_rng(0)
    sample = draws.standard_normal(10_000)
    assert difference(draws.standard_normal(10_000), sample) == ""
    assert difference(0.1 + draws.standard_normal(10_000), sample).startswith("mean 0.")
    assert difference(1.1 * draws.standard_normal(10_000), sample).startswith("mean magnitude 0.8")
    assert difference(draws.laplace(scale=0.8, size=10_000), sample).startswith("deviation 1.1")
    assert difference(np.zeros(10_000), sample).startswith("[0. 0.] ..., not [")
