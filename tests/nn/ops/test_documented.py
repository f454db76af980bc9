"""The examples of docs/ops.md and of the docstrings run, and give what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxzoo.nn import ops


@pytest.fixture(autouse=True)
def float32():
    """As users have it."""
    with jax.enable_x64(False):
        yield


def test_the_page_runs():
    page = (Path(ops.__file__).parents[3] / "docs" / "ops.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)


def test_the_page_names_every_operation():
    page = (Path(ops.__file__).parents[3] / "docs" / "ops.md").read_text()
    assert [name for name in ops.__all__ if not re.search(rf"\b{name}\b", page)] == []


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(ops.__path__)])
def test_examples_of_docstrings(module):
    module = importlib.import_module(f"{ops.__name__}.{module}")
    names = {**vars(ops), **vars(module), "jnp": jnp, "jax": jax}
    assert doctest.testmod(module, globs=names).failed == 0
