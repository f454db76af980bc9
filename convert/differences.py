"""The differences between weights and a model, in words: the most telling first, the rest counted."""

from collections.abc import Callable, Iterable, Mapping

Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 5  # of each kind, so that an error stays a paragraph


def listed(items: Iterable[str], shown: int = SHOWN) -> str:
    """The first few, and how many more there are."""
    items = list(items)
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + more


def differences(wanted: Shapes, given: Shapes, missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """A line for each kind of difference, with the number of tensors; "" where there is none.

    Args:
      wanted: the model's tensors.
      given: the file's.
      missing: those names of the model's that count as missing.
      unexpected: those of the file's that count as too many.
    """
    kinds = {
        "missing": _by_module(missing, wanted, given),
        "unexpected": _by_module(unexpected, given, wanted),
        "misshapen": [
            (f"{name} is {given[name]}, should be {shape}", 1)
            for name, shape in wanted.items()
            if name in given and given[name] != shape
        ],
    }
    return "".join(
        f"\n  {kind} ({sum(count for _, count in found)}): {listed(text for text, _ in found)}"
        for kind, found in kinds.items()
        if found
    )


def _by_module(names: Iterable[str], shapes: Shapes, others: Shapes) -> list[tuple[str, int]]:
    """Tensors of one side, if many those of a module that the other side lacks altogether as one: words and counts."""
    names = list(names)
    if len(names) <= SHOWN:
        return [(f"{name} {shapes[name]}", 1) for name in names]
    there = {name[:end] for name in others for end, letter in enumerate(name) if letter == "."}
    modules: dict[str, list[str]] = {}
    for name in names:
        parents = [name[:end] for end, letter in enumerate(name) if letter == "."]
        modules.setdefault(next((path for path in parents if path not in there), name), []).append(name)
    return [
        (f"{path} ({len(inside)} tensors)", len(inside)) if len(inside) > 1 else (f"{inside[0]} {shapes[inside[0]]}", 1)
        for path, inside in modules.items()
    ]


def counted(names: Iterable[str], part: Callable[[str], str]) -> list[str]:
    """Names that share a part as one item, with their number."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(part(name), []).append(name)
    return [f"{key} ({len(inside)} tensors)" if len(inside) > 1 else inside[0] for key, inside in groups.items()]
