"""A model cut open: the outputs of some of its modules instead of its own, without a line of the model changed."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from jaxzoo.errors import UsageError
from jaxzoo.inspect.intercept import around_calls, called


def feature_extractor(model: nnx.Module, return_nodes: Mapping[str, str] | Sequence[str] | str) -> "FeatureExtractor":
    """A module that returns what some of a model's modules return, and runs the model only as far as that takes.

    `torchvision.models.feature_extraction.create_feature_extractor`, whose names of modules hold here.

    >>> backbone = feature_extractor(create_model("resnet50"), {"layer3": "c4", "layer4": "c5"})
    >>> backbone(images)["c5"].shape  # channels last
    (1, 7, 7, 2048)

    Args:
      model: any NNX module. The extractor shares its parts: weights that one of them gets, the other has.
      return_nodes: by the dotted path of a module, what its output is called; or only paths, or one, as names. A
        module that runs several times returns its first result under its path and others under `path_1`, `path_2` …

    Raises:
      UsageError: no such module, or none that runs by itself, or two outputs of one name.
    """
    return_nodes = [return_nodes] if isinstance(return_nodes, str) else return_nodes
    nodes = dict(return_nodes) if isinstance(return_nodes, Mapping) else {path: path for path in return_nodes}
    for path in nodes:
        called(model, path)
    if not nodes or len(set(nodes.values())) < len(nodes):
        raise UsageError(f"return_nodes is {return_nodes!r}; it must name at least one output, and each differently")
    return FeatureExtractor(model, nodes)


class _Found(BaseException):
    """Ends a model's call when nothing more is needed of it."""


class FeatureExtractor(nnx.Module):
    """What `feature_extractor` returns: the model's own attributes, so that a state_dict has the model's keys."""

    def __init__(self, model: nnx.Module, nodes: Mapping[str, str]):
        vars(self).update({name: value for name, value in vars(model).items() if name != "_pytree__state"})
        self.model_class = model.model_class if isinstance(model, FeatureExtractor) else type(model)
        self.return_nodes = tuple(nodes.items())

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, jax.Array]:
        model = object.__new__(self.model_class)  # the model around the same parts
        vars(model).update(vars(self))
        wanted = {called(model, path): name for path, name in self.return_nodes}
        calls: collections.Counter[str] = collections.Counter()
        found, end = {}, _Found()

        def record(path: str, call: Callable[[], Any]) -> Any:
            number = calls[path]
            calls[path] += 1
            result = call()
            if (path, number) in wanted:
                found[wanted[path, number]] = result
                if len(found) == len(wanted):
                    raise end
            return result

        with around_calls(model, record):
            try:
                model(*args, **kwargs)
            except _Found as caught:
                if caught is not end:
                    raise
        if missing := [path for path, name in self.return_nodes if name not in found]:
            raise UsageError(
                f"{', '.join(missing)} did not run in {self.model_class.__name__}: it may run in train mode only, or "
                "less often than its number says"
            )
        return {name: found[name] for _, name in self.return_nodes}
