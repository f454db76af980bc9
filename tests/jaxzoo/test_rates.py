"""Dropout and stochastic depth, which the parity ladder switches off, have their twins' rates."""

import numpy as np
import pytest
import torch
from flax import nnx
from torchvision.ops import StochasticDepth as TorchStochasticDepth

import jaxzoo
from convert.twins import abstract_twin
from jaxzoo.nn import Dropout, StochasticDepth


@pytest.mark.full
@pytest.mark.parametrize("name", jaxzoo.list_models())
def test_rates_are_the_twins(name):
    twin = list(abstract_twin(jaxzoo.card(name)).modules())
    model = nnx.eval_shape(lambda: jaxzoo.create_model(name))
    ours = [module for _, module in nnx.iter_modules(model)]
    for kind, torch_kind in ((Dropout, torch.nn.Dropout), (StochasticDepth, TorchStochasticDepth)):
        found = sorted(module.p for module in ours if type(module) is kind and module.p)
        wanted = sorted(module.p for module in twin if isinstance(module, torch_kind) and module.p)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=kind.__name__)
