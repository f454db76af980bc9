"""Layers and models under JAX's and Flax's transformations."""

import copy
import functools

import jax
import pytest
from flax import nnx

import jaxzoo
from convert.rules import leaves
from convert.twins import abstract_twin

RNGS = nnx.Rngs(0)


@functools.cache
def families() -> list[str]:
    """The smallest model of each family, by file."""
    smallest: dict[str, tuple[int, str]] = {}
    for name in jaxzoo.list_models():
        size = jaxzoo.model_info(name).parameters, name
        family = jaxzoo.card(name).builder.__module__
        smallest[family] = min(size, smallest.get(family, size))
    return sorted(name for _, name in smallest.values())


@pytest.mark.parametrize("name", families())
def test_copies_of_a_model_are_equal_and_in_torchs_order(name):
    one, other = (nnx.eval_shape(functools.partial(jaxzoo.create_model, name, seed=seed)) for seed in (0, 1))
    graph = nnx.graphdef(one)
    assert graph == nnx.graphdef(other) and hash(graph) == hash(nnx.graphdef(other))
    structure = jax.tree.structure(one)
    assert structure == jax.tree.structure(other) and hash(structure) == hash(jax.tree.structure(other))
    assert jax.tree.structure(jax.tree.map(lambda a, b: (a.shape, b.dtype) and a, one, other)) == structure
    keys = list(abstract_twin(jaxzoo.card(name)).state_dict())
    for made in (nnx.merge(*nnx.split(one)), nnx.clone(one), copy.deepcopy(one), jax.tree.map(lambda a: a, one)):
        assert [leaf.key for leaf in leaves(made)] == keys
        assert nnx.graphdef(made) == graph
