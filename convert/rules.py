"""The layer rules: one per kind of layer, both directions, no tables per model.

A parameter's path in the Flax module is its path in the PyTorch twin; what differs is the leaf, and that depends on the
type of the module that owns it alone. So these rules serve any NNX module whose attributes bear its twin's names.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.differences import differences
from convert.files import from_torch
from convert.layout import handed_out
from jaxzoo.errors import Remedy, UsageError
from jaxzoo.nn import DarknetBatchNorm, InProjection, LocallyConnected2d, attributes
from jaxzoo.nn.ops import FrozenBatchNorm2d

StateDict = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The torch name of a Flax leaf, and how its array moves over and back (views where possible)."""

    name: str
    to_flax: Callable[[np.ndarray], np.ndarray] = lambda a: a
    to_torch: Callable[[np.ndarray], np.ndarray] = lambda a: a
    optional: bool = False  # torch may leave it out: torch below 0.4.1 did not count batches


def _permuted(name: str, permutation: Callable[[int], tuple[int, ...]]) -> Rule:
    """A rule that permutes the axes; `permutation(rank)` leads from torch to Flax."""
    return Rule(
        name,
        lambda a: a.transpose(permutation(a.ndim)),
        lambda a: a.transpose(np.argsort(permutation(a.ndim))),
    )


_BIAS = {"bias": Rule("bias")}
_AFFINE = {"scale": Rule("weight")} | _BIAS
# (out, in, *k) -> (*k, in, out), and of a ConvTranspose (in, out, *k) -> (*k, out, in)
_CONV = _permuted("weight", lambda rank: (*range(2, rank), 1, 0))


def _flip(a: np.ndarray) -> np.ndarray:
    return np.flip(a, range(a.ndim - 2)).copy()  # torch takes no view with negative strides


_UNTRANSPOSED = Rule(  # Flax's ConvTranspose as a correlation: (in, out, *k) -> (*k, in, out), mirrored
    "weight",
    lambda a: _flip(a.transpose(*range(2, a.ndim), 0, 1)),
    lambda a: _flip(a).transpose(a.ndim - 2, a.ndim - 1, *range(a.ndim - 2)),
)
_UNCOUNTED = _AFFINE | {"mean": Rule("running_mean"), "var": Rule("running_var")}
_COUNTED = _UNCOUNTED | {"num_batches_tracked": Rule("num_batches_tracked", optional=True)}

RULES: dict[type[nnx.Module], dict[str, Rule]] = {
    nnx.Conv: {"kernel": _CONV} | _BIAS,
    nnx.Linear: {"kernel": _permuted("weight", lambda rank: (1, 0))} | _BIAS,
    nnx.BatchNorm: _COUNTED,
    FrozenBatchNorm2d: _UNCOUNTED,
    DarknetBatchNorm: _UNCOUNTED,
    LocallyConnected2d: {  # (places, out, in) -> (places, in, out)
        "kernel": _permuted("weight", lambda rank: (0, 2, 1)),
        "bias": _permuted("bias", lambda rank: (1, 0)),
    },
    nnx.LayerNorm: _AFFINE,
    nnx.GroupNorm: _AFFINE,
    nnx.RMSNorm: _AFFINE,
    nnx.Embed: {"embedding": Rule("weight")},
}


def _rules(module: nnx.Module) -> Mapping[str, Rule]:
    if isinstance(module, nnx.ConvTranspose):
        return {"kernel": _CONV if module.transpose_kernel else _UNTRANSPOSED} | _BIAS
    return next((RULES[kind] for kind in type(module).__mro__ if kind in RULES), {})


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter, statistic or table: where it is in Flax, and what torch calls it."""

    path: str  # "layer1.0.conv1.kernel"
    key: str  # "layer1.0.conv1.weight"
    variable: nnx.Variable
    rule: Rule
    owner: nnx.Module

    @property
    def name(self) -> str:
        """What its module calls it."""
        return self.path.rpartition(".")[2]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.get_value().shape)

    @property
    def torch_shape(self) -> tuple[int, ...]:
        return self.rule.to_torch(np.broadcast_to(np.zeros((), bool), self.shape)).shape


def leaves(module: nnx.Module) -> Iterator[Leaf]:
    """Every leaf that a state_dict holds, in torch's order; the states of random streams are not among them.

    That is the order in which modules were assigned, each one's own parameters first and its buffers next. `module` may
    be abstract (`nnx.eval_shape`). A module that is used in several places comes once for each, as in torch, with
    another key and the same path.
    """
    modules = _by_every_path(module)
    home = {id(m): path for path, m in nnx.iter_modules(module)}
    transparent = {  # Flax's Sequential keeps its children in a list of its own, torch's does not
        (*path, "layers") for path, m in modules.items() if isinstance(m, nnx.Sequential)
    }
    assigned = {path: {name: i for i, name in enumerate(attributes(m))} for path, m in modules.items()}

    def place(path: tuple) -> tuple:
        return tuple(assigned.get(path[:i], {}).get(name, name) for i, name in enumerate(path))

    for path in sorted(modules, key=place):
        owner = modules[path]
        rules = _rules(owner)
        names = [str(name) for i, name in enumerate(path) if path[: i + 1] not in transparent]
        prefix = ".".join(names)
        if prefix:  # torch's attention writes in_proj_weight where others would write in_proj.weight
            prefix += "_" if isinstance(owner, InProjection) else "."
        found = {
            name: variable
            for name, variable in attributes(owner).items()
            if isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.RngState)
        }
        ruled = [name for name in rules if name in found]
        others = sorted((n for n in found if n not in rules), key=lambda n: not isinstance(found[n], nnx.Param))
        for name in ruled + others:
            rule = rules.get(name, Rule(name))
            yield Leaf(".".join(map(str, (*home[id(owner)], name))), prefix + rule.name, found[name], rule, owner)


def _by_every_path(module: nnx.Module) -> dict[tuple, nnx.Module]:
    """A module and those in it; who is used in several places has several paths, of which Flax knows one."""
    modules = dict(nnx.iter_modules(module))
    todo = list(modules.items())
    for path, owner in todo:
        above = [modules[path[:i]] for i in range(len(path) + 1) if path[:i] in modules]
        for name, child in nnx.iter_children(owner):
            place = (*path, name)
            if isinstance(child, nnx.Module) and place not in modules and all(child is not a for a in above):
                modules[place] = child
                todo.append((place, child))
    return modules


def _array(value) -> np.ndarray:
    return from_torch(value) if hasattr(value, "detach") else np.asarray(value)


def _fits(key: str, prefixes: Collection[str]) -> bool:
    return any(key == p or key.startswith((f"{p}.", f"{p}_")) for p in prefixes)


def _uncounted(found: Iterable[Leaf]) -> set[str]:
    """torch's batch counters that Flax's own BatchNorm has no leaf for."""
    keys = {leaf.key for leaf in found}
    return {k.removesuffix("running_mean") + "num_batches_tracked" for k in keys if k.endswith("running_mean")} - keys


def _check(module: nnx.Module, found: list[Leaf], state_dict: StateDict, skip: Collection[str]) -> None:
    wanted = {leaf.key: leaf.torch_shape for leaf in found}
    given = {key: tuple(array.shape) for key, array in state_dict.items()}
    counters = _uncounted(found)
    filled = {id(leaf.variable) for leaf in found if leaf.key in given}
    missing = [x.key for x in found if id(x.variable) not in filled and not x.rule.optional]
    unexpected = [key for key in given if key not in wanted and key not in counters and not _fits(key, skip)]
    if text := differences(wanted, given, missing, unexpected):
        own, others = (dict.fromkeys(key.partition(".")[0] for key in keys) for keys in (wanted, unexpected))
        beside = [name for name in others if name not in own]
        ways = [Remedy("skip", beside, "leaves out what lies beside the model")] if 0 < len(beside) < 4 else []
        raise UsageError(f"these weights do not fit {type(module).__name__}:{text}", *ways)


def flax_arrays(
    module: nnx.Module, state_dict: StateDict, *, skip: Collection[str] = (), copy: bool = True
) -> dict[str, np.ndarray]:
    """torch's tensors in Flax's layout, by dotted Flax path, with the dtypes that they have.

    Args:
      module: the model to fill; may be abstract (`nnx.eval_shape`).
      state_dict: arrays by torch key.
      skip: prefixes of torch keys that are left out on both sides.
      copy: arrays in C order, read-only where they share memory with `state_dict`; else transposed views of it.

    Raises:
      UsageError: tensors are missing, unexpected or misshapen, or one that is used twice has two values.
    """
    found = [leaf for leaf in leaves(module) if not _fits(leaf.key, skip)]
    _check(module, found, state_dict, skip)
    arrays, keys = {}, {}
    for leaf in found:
        if leaf.key not in state_dict:
            continue
        array = leaf.rule.to_flax(_array(state_dict[leaf.key]))
        first = keys.setdefault(id(leaf.variable), leaf)
        if first is not leaf and not np.array_equal(arrays[first.path], array, equal_nan=array.dtype.kind == "f"):
            one = f"{type(module).__name__} uses one tensor as {first.key} and as {leaf.key}"
            raise UsageError(f"{one}, and these weights hold two different ones")
        arrays[leaf.path] = handed_out(array) if copy else array
    return arrays


def torch_arrays(module: nnx.Module, arrays: Mapping[str, np.ndarray], *, copy: bool = True) -> dict[str, np.ndarray]:
    """The inverse of `flax_arrays`: arrays by dotted Flax path to a state_dict with torch's keys and layouts."""
    found = [leaf for leaf in leaves(module) if leaf.path in arrays]
    result = {leaf.key: leaf.rule.to_torch(np.asarray(arrays[leaf.path])) for leaf in found}
    result = {key: handed_out(array) for key, array in result.items()} if copy else result
    counting = [leaf for leaf in found if isinstance(leaf.owner, nnx.BatchNorm)]  # one that is frozen does not
    return result | {key: np.zeros((), np.int64) for key in _uncounted(counting)}


def load_state_dict(module: nnx.Module, state_dict: StateDict, *, skip: Collection[str] = ()) -> None:
    """Fills any NNX module whose names mirror its torch twin's, in place; every leaf keeps its own dtype.

    >>> convert.load_state_dict(my_module, convert.read("twin.pth"))

    Args:
      module: concrete or abstract (`nnx.eval_shape(lambda: MyModule(rngs=nnx.Rngs(0)))` saves the initialisation).
      state_dict: arrays by torch key, as `convert.read` gives them, or torch's own tensors.
      skip: prefixes of torch keys to leave out, for example `["fc"]`.

    Raises:
      UsageError: says which tensors are missing, unexpected or misshapen. The module is then unchanged.
    """
    arrays = flax_arrays(module, state_dict, skip=skip, copy=False)
    for leaf in leaves(module):
        if leaf.path in arrays:
            # A copy: jnp.asarray may share memory with NumPy, and torch trains in place.
            leaf.variable.set_value(jnp.array(arrays[leaf.path], leaf.variable.get_value().dtype))
        elif leaf.rule.optional:
            leaf.variable.set_value(jnp.zeros(leaf.shape, leaf.variable.get_value().dtype))


def versions(module: nnx.Module) -> dict[str, int]:
    """The layouts of state_dicts that torch's modules tell apart by number, by the path of each that has `_version`."""
    found = nnx.iter_modules(module)
    return {".".join(map(str, path)): m._version for path, m in found if hasattr(m, "_version")}


def state_dict(module: nnx.Module) -> dict[str, np.ndarray]:
    """A module's parameters, statistics and tables as torch has them: its keys, its layouts, whole numbers as int64.

    Arrays of your own in C order, which `safetensors.numpy.save_file` and `torch.from_numpy` take as they are.
    """
    arrays = {leaf.path: as_torch(np.asarray(leaf.variable.get_value())) for leaf in leaves(module)}
    return {key: a if a.flags.writeable else a.copy() for key, a in torch_arrays(module, arrays).items()}


def as_torch(array: np.ndarray) -> np.ndarray:
    """In the dtype that torch has it in: whole numbers, of which JAX makes int32, as int64."""
    return array.astype(np.int64) if np.issubdtype(array.dtype, np.integer) else array
