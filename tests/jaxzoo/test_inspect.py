"""`jaxzoo.inspect` sees what torch's hooks and modules show."""

import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torchvision
from flax import nnx

from jaxzoo import create_model, nn
from jaxzoo.inspect import outputs, summary
from jaxzoo.inspect.intercept import around_calls
from tests.compare import arrays, cast, close, normal, randomise, to_last


def test_every_submodules_output_equals_torchs():
    import torch

    import convert

    twin = randomise(torchvision.models.resnet18(num_classes=5)).eval()
    ours = cast(nnx.eval_shape(lambda: create_model("resnet18", num_classes=5)), jnp.float64)
    convert.load_state_dict(ours, arrays(twin))
    seen = {}
    for name, module in twin.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: seen.update({name: y.detach().numpy().copy()}))
    x = normal(2, 3, 33, 41)
    twin(torch.tensor(x))
    found = jax.jit(lambda x: outputs(ours, x))(jnp.asarray(to_last(x)))
    assert found.keys() == seen.keys()
    for path, y in seen.items():
        close(found[path], to_last(y) if y.ndim > 2 else y, path)


class Inner(nn.Sequential):
    """Inherits its call."""


def model() -> nnx.Module:
    rngs = nnx.Rngs(0)
    return nn.Sequential(Inner(nn.Linear(3, 4, rngs=rngs), nn.ReLU()), nn.Linear(4, 2, rngs=rngs))


def test_outputs_come_in_the_order_in_which_modules_finish():
    x = jnp.ones((2, 3))
    found = outputs(model(), x)
    assert list(found) == ["0.0", "0.1", "0", "1", ""]
    np.testing.assert_array_equal(found[""], model()(x))


def test_a_module_that_ran_twice_gives_its_last_output():
    linear = nn.Linear(3, 3, rngs=nnx.Rngs(0))

    class Twice(nnx.Module):
        def __init__(self):
            self.linear = linear

        def __call__(self, x):
            return self.linear(self.linear(x)) + 1

    x = jnp.ones((2, 3))
    assert list(outputs(Twice(), x)) == ["linear", ""]
    np.testing.assert_array_equal(outputs(Twice(), x)["linear"], linear(linear(x)))


def test_other_models_are_not_recorded():
    other = model()

    class Outer(nnx.Module):
        def __call__(self, x):
            return nn.Linear(3, 3, rngs=nnx.Rngs(0))(x)

    assert list(outputs(Outer(), jnp.ones((2, 3)))) == [""]
    assert list(outputs(other, jnp.ones((2, 3))))[-1] == ""


@pytest.mark.parametrize("x", [jnp.ones((2, 3)), jnp.ones((2, 5))], ids=["after a run", "after an error"])
def test_classes_are_left_as_they_were(x):
    before = [dict(vars(kind)) for kind in (Inner, nn.Sequential, nn.ReLU, nn.Linear)]
    try:
        outputs(model(), x)
    except (TypeError, ValueError):
        assert x.shape[1] == 5
    after = [dict(vars(kind)) for kind in (Inner, nn.Sequential, nn.ReLU, nn.Linear)]
    assert [b.get("__call__") for b in before] == [a.get("__call__") for a in after]
    assert "__call__" not in vars(Inner) and "__call__" not in vars(nn.ReLU)


class Branches(nnx.Module):
    """A list that is no layer, layers that do not run, and two results."""

    def __init__(self, rngs: nnx.Rngs):
        self.aux = nn.Sequential(nn.Linear(3, 9, rngs=rngs))
        self.branches = nnx.List([nn.Linear(4, size, bias=False, rngs=rngs) for size in (5, 6)])
        self.spare = nn.ReLU()
        self.stem = nn.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        return self.branches[1](x), self.branches[0](x)


def test_a_summary_has_every_module_in_the_order_in_which_they_start():
    rows = summary(nnx.eval_shape(lambda: Branches(nnx.Rngs(0))), (2, 3))
    assert [(r.path, r.kind, r.outputs, r.parameters, r.multiply_adds) for r in rows] == [
        ("", "Branches", ((2, 6), (2, 5)), 36 + 16 + 20 + 24, 2 * (12 + 20 + 24)),
        ("stem", "Linear", ((2, 4),), 16, 2 * 12),
        ("branches", "List", (), 44, 2 * 44),
        ("branches.1", "Linear", ((2, 6),), 24, 2 * 24),
        ("branches.0", "Linear", ((2, 5),), 20, 2 * 20),
        ("aux", "Sequential", (), 36, 0),
        ("aux.0", "Linear", (), 36, 0),
        ("spare", "ReLU", (), 0, 0),
    ]


def test_a_summary_agrees_with_torchs_modules():
    twin = torchvision.models.mobilenet_v3_small()
    rows = summary(nnx.eval_shape(lambda: create_model("mobilenet_v3_small")), (1, 64, 64, 3))
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in twin.named_modules()}
    assert {row.path: row.parameters for row in rows} == sizes
    assert [row.path for row in rows if row.path.count(".") < 1] == ["", "features", "avgpool", "classifier"]


def test_outputs_of_two_threads_do_not_mix():
    models = [nn.Sequential(nn.ReLU(), nn.Linear(2, width, rngs=nnx.Rngs(0))) for width in (3, 4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda model: outputs(model, jnp.ones((1, 2))), models * 20))
    assert [y[""].shape[-1] for y in found] == [3, 4] * 20 and {tuple(y) for y in found} == {("0", "1", "")}
    assert "unwatched" not in vars(nn.ReLU.__call__)


class Doubled(nn.Linear):
    """Calls what it overrides, twice."""

    def __call__(self, x):
        return super().__call__(x) + super().__call__(x)


def test_a_call_that_overrides_another_is_intercepted_once():
    net = nn.Sequential(nn.Linear(2, 2, rngs=nnx.Rngs(0)), Doubled(2, 2, rngs=nnx.Rngs(1)))
    calls = []
    with around_calls(net, lambda path, call: (calls.append(path), call())[1]):
        net(jnp.ones((1, 2)))
    assert calls == ["", "0", "1"]


def test_models_of_other_threads_run_as_they_are_meanwhile():
    """Also one that starts while the classes are watched, and goes on when they no longer are."""
    net, other = (nn.Sequential(nn.Linear(2, 2, rngs=nnx.Rngs(0)), nn.ReLU()) for _ in range(2))
    inside, done, seen = threading.Event(), threading.Event(), []

    class Waiting(nn.Linear):
        def __call__(self, x):
            inside.set()
            assert done.wait(10)
            return super().__call__(x)

    waiting = nn.Sequential(Waiting(2, 2, rngs=nnx.Rngs(0)), nn.ReLU())
    with ThreadPoolExecutor(1) as pool:
        with around_calls(net, lambda path, call: (seen.append(path), call())[1]):
            later = pool.submit(waiting, jnp.ones((1, 2)))
            assert inside.wait(10)
            other(jnp.ones((1, 2)))
            assert seen == []
            net(jnp.ones((1, 2)))
        done.set()
        assert later.result().shape == (1, 2) and seen == ["", "0", "1"]
