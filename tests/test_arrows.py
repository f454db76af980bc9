"""Which package may import which: train → convert → jaxzoo, and the shell above all. Imports inside functions count."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jaxzoo", "convert", "train")
SHELL = ("jaxzoo.commands", "jaxzoo.__main__")
FAMILIES = ("jaxzoo.classification", "jaxzoo.segmentation", "jaxzoo.generative")


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """What a file imports when it runs, as `package.module` or `package.module.name`; not what only editors read."""
    for_editors = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for_editors |= {id(inner) for part in node.body for inner in ast.walk(part)}
        elif isinstance(node, ast.Import) and id(node) not in for_editors:
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and id(node) not in for_editors:
            assert not node.level, f"{path} imports by a relative path"
            yield from (f"{node.module}.{name.name}" for name in node.names)


ARROWS = {name: set(imports(path)) for name, path in MODULES.items()}


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def broken(of: tuple[str, ...], to: tuple[str, ...], *, but: tuple[str, ...] = ()) -> list[str]:
    """Arrows from one group of modules to another, but for those that start in some."""
    return [
        f"{name} imports {other}"
        for name, others in ARROWS.items()
        for other in sorted(others)
        if inside(name, *of) and not inside(name, *but) and inside(other, *to)
    ]


@pytest.mark.parametrize(
    ("of", "to", "but"),
    [
        (("jaxzoo",), ("convert", "train"), SHELL),
        (("convert",), ("train",), ()),
        (PACKAGES, ("torch", "torchvision", "timm", "pytorchcv"), ("convert",)),
        (PACKAGES, ("tests",), ()),
        (PACKAGES, ("jaxzoo.commands",), SHELL),
        (("jaxzoo.nn",), FAMILIES, ()),
        (("jaxzoo.nn",), ("jaxzoo.registry", "jaxzoo.inspect"), ()),
        (("jaxzoo.registry", "jaxzoo.model_size", "jaxzoo.preprocess"), ("jaxzoo.inspect", *FAMILIES), ()),
        (("jaxzoo.inspect",), FAMILIES, ()),
        (
            ("train.engine", "train.run_log", "train.loop"),
            ("train.tasks.classification", "train.tasks.segmentation"),
            (),
        ),
    ],
)
def test_no_arrow_points_the_other_way(of, to, but):
    assert not broken(of, to, but=but)


def test_families_import_layers_the_registry_and_each_other_alone():
    allowed = (*FAMILIES, "jaxzoo.nn", "jaxzoo.registry", "jaxzoo.preprocess", "jaxzoo.errors")
    assert not [arrow for arrow in broken(FAMILIES, PACKAGES) if not inside(arrow.rpartition(" ")[2], *allowed)]


LAYERS = (  # of train/, lowest first
    *("config", "distributed", "metrics", "reporting", "data", "augment", "optim", "tasks", "engine", "transfer"),
    *("inspection", "setup", "run_log", "loop", "__main__"),
)


def test_a_layer_of_train_imports_no_higher_one():
    homes = [f"train.{layer}" for layer in LAYERS]
    assert not [arrow for i, layer in enumerate(homes) for arrow in broken((layer,), tuple(homes[i + 1 :]))]
    assert {name for name in MODULES if inside(name, "train") and not inside(name, *homes)} == {"train"}


@pytest.mark.parametrize("packages", [FAMILIES, ("jaxzoo.nn",), ("convert",), ("train",)])
def test_there_is_no_circle(packages):
    """Of modules; a package's own file, which gathers the names of those in it, is left out."""
    arrows = {
        name: {module for other in others if (module := module_of(other)) and inside(module, *packages)} - {name}
        for name, others in ARROWS.items()
        if inside(name, *packages) and MODULES[name].name != "__init__.py"
    }
    while leaves := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in leaves}
    assert not arrows


def module_of(imported: str) -> str | None:
    """`jaxzoo.nn.conv` for `jaxzoo.nn.conv.Conv`."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in MODULES), None)


def test_the_test_would_see_an_arrow():
    assert broken(("convert",), ("jaxzoo",)) and broken(("train",), ("convert",)) and broken(("convert",), ("torch",))
