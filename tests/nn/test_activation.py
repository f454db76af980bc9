"""Activations equal torch's, and so do their gradients where they have a corner."""

import numpy as np
import pytest
import torch

from jaxzoo import nn
from tests.compare import agree

POINTS = np.array([-1e3, -40, -6, -3, -1.5, -1e-9, -0.0, 0, 1e-9, 0.5, 3, 6 - 1e-9, 6, 6 + 1e-9, 40, 1e3])
POINTS = np.concatenate([POINTS, np.nextafter(-3, [-9, 0]), np.nextafter(3, [0, 9]), np.linspace(-7, 7, 57)])


@pytest.mark.parametrize("name", ["ReLU", "ReLU6", "GELU", "SiLU", "Sigmoid", "Tanh", "Hardsigmoid", "Hardswish"])
def test_activation_equals_torch(name):
    agree(getattr(nn, name)(), getattr(torch.nn, name)(), POINTS)


def test_leaky_relu_equals_torch():
    agree(nn.LeakyReLU(0.1), torch.nn.LeakyReLU(0.1), POINTS)
    agree(nn.leaky_relu, torch.nn.functional.leaky_relu, POINTS)


@pytest.mark.parametrize("name", ["relu", "relu6", "gelu", "silu", "sigmoid", "hardsigmoid", "hardswish"])
def test_function_equals_torch(name):
    agree(getattr(nn, name), getattr(torch.nn.functional, name), POINTS)


@pytest.mark.parametrize("name", ["relu", "relu6", "leaky_relu", "gelu", "silu", "sigmoid", "hardsigmoid", "hardswish"])
def test_nan_stays_nan(name):
    assert np.isnan(getattr(nn, name)(np.array([np.nan])))
