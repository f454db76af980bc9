"""Which models stand for all where testing every one takes too long."""

import functools
import itertools
from collections import defaultdict

import jaxzoo
from convert.twins import abstract_twin


@functools.cache
def representatives() -> frozenset[str]:
    """Of every family the smallest model of each set of building blocks, and two models at least."""
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
        others = (name for _, name, _ in models if name not in smallest.values())
        chosen |= {*smallest.values(), *itertools.islice(others, max(0, 2 - len(smallest)))}
    return frozenset(chosen)
