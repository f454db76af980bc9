"""Which models stand for all where testing every one takes too long."""

import functools
from collections import defaultdict

import jaxzoo
from convert.twins import abstract_twin


@functools.cache
def representatives() -> frozenset[str]:
    """Of every family the smallest model of each set of building blocks."""
    families = defaultdict(list)
    for name in jaxzoo.list_models():
        twin = abstract_twin(jaxzoo.card(name))
        blocks = frozenset((type(m), getattr(m, "groups", 1) > 1) for m in twin.modules())
        size = sum(p.numel() for p in twin.parameters())
        families[jaxzoo.card(name).builder.__module__].append((size, name, blocks))
    chosen = set()
    for models in map(sorted, families.values()):
        smallest = {}
        for _, name, blocks in models:
            smallest.setdefault(blocks, name)
        chosen.update(smallest.values())
    return frozenset(chosen)
