"""The models that stand for others are those that the registry and the twins ask for."""

import inspect
from collections import defaultdict

import jaxzoo
from convert.twins import abstract_twin
from tests.representatives import REPRESENTATIVES


def test_the_smallest_model_of_each_set_of_blocks_stands_for_the_others():
    kinds = defaultdict(list)
    for name in jaxzoo.list_models():
        builder, twin = jaxzoo.card(name).builder, abstract_twin(jaxzoo.card(name))
        blocks = frozenset((type(m), getattr(m, "groups", 1) > 1) for m in twin.modules())
        size = sum(p.numel() for p in twin.parameters())
        kinds[builder.__module__, inspect.signature(builder).return_annotation, blocks].append((size, name))
    assert {min(models)[1] for models in kinds.values()} == REPRESENTATIVES
