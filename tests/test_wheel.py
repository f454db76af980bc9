"""The wheel, in an environment of its own with what the wheel asks for and nothing else: no torch, no checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from safetensors.numpy import save_file

import convert
import jaxzoo
from jaxzoo.__main__ import main

pytestmark = pytest.mark.xdist_group("wheel")

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "jaxzoo", "convert", "train")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
MINE = ("train", "convert", "jaxzoo", "inspect", "datasets", "flax")  # .py files in the folder where people work


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder `bin` of an environment into which pip has installed the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = built(folder)
    environment = folder / "environment"
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    shutil.unpack_archive(wheel, folder / "unpacked", "zip")
    link_requirements(metadata_of(folder), next(environment.glob("lib/python3*/site-packages")))
    # pip refuses what lacks a requirement, for it may not look for one.
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", wheel, cwd=folder)
    return python.parent


def metadata_of(folder: Path) -> Path:
    return next((folder / "unpacked").glob("*.dist-info"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where somebody works who has modules of the same names."""
    for name in MINE:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working directory was imported')")
    return tmp_path


def built(folder: Path) -> Path:
    """The wheel, from the archive of sources as `python -m build` makes it."""
    (folder / "checkout").mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "checkout" / name)
    run(sys.executable, "-c", BUILD, "sdist", folder, cwd=folder / "checkout")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    run(sys.executable, "-c", BUILD, "wheel", folder, cwd=folder / archive.name.removesuffix(".tar.gz"))
    return next(folder.glob("*.whl"))


def link_requirements(metadata: Path, site_packages: Path, *extras: str) -> None:
    """Links what the wheel requires with these extras, directly or not, out of the tests' environment."""
    seen, waiting = set(), requirements(Distribution.at(metadata), frozenset(extras))
    while waiting:
        name, extras = requirement = waiting.pop()
        seen.add(requirement)
        waiting |= requirements(distribution(name), extras) - seen
    for name in {name for name, _ in seen}:
        for file in distribution(name).files:
            if ".." not in file.parts:
                link = site_packages / file
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file.locate())


def requirements(package: Distribution, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """What a distribution requires with some of its extras: names, and extras of those."""
    parsed = [Requirement(line) for line in package.requires or ()]
    return {
        (canonicalize_name(r.name), frozenset(r.extras))
        for r in parsed
        if not r.marker or any(r.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    }


def run(*command: object, cwd: Path, **variables: object) -> str:
    environment = os.environ | {name: str(value) for name, value in variables.items()}
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


IMPORT = """
import sys
import jaxzoo
jaxzoo.list_models()
import train.loop
print(jaxzoo.__file__, *{"torch", "tensorflow"} & set(sys.modules))
"""


def test_it_is_imported_from_where_it_was_installed_and_imports_no_other_framework(programs, tmp_path):
    said = run(programs / "python", "-c", IMPORT, cwd=tmp_path).split()
    assert said == [str(next(programs.parent.glob("lib/python3*/site-packages/jaxzoo/__init__.py")))]


def test_it_predicts_from_safetensors_without_torch(programs, folder, capsys):
    model = jaxzoo.create_model("lenet5", seed=1)
    arrays = {name: np.array(array, order="C") for name, array in convert.state_dict(model).items()}
    save_file(arrays, folder / "weights.safetensors")
    Image.fromarray(np.arange(3 * 64 * 64, dtype=np.uint8).reshape(64, 64, 3)).save(folder / "cat.png")
    command = ["predict", "cat.png", "--model", "lenet5", "--weights", "weights.safetensors"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(command)
    assert run(programs / "jaxzoo", *command, cwd=folder) == capsys.readouterr().out


def test_with_the_extra_torch_it_compares_a_model_with_its_twin(programs, folder):
    """The wheel holds the twins that no package has."""
    link_requirements(metadata_of(programs.parents[1]), folder / "with-torch", "torch")
    command = [programs / "jaxzoo", "convert", "diff", "--model", "lenet5"]
    assert "layers agree to" in run(*command, cwd=folder, PYTHONPATH=folder / "with-torch")


def test_it_trains_on_the_digits(programs, folder):
    options = ["--model", "lenet5", "--epochs", "1", "--out", "run"]
    said = run(programs / "jaxzoo", "train", *options, cwd=folder)
    assert re.search(r"accuracy|%", said) and (folder / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("module", "arguments"), [("jaxzoo", ["info", "lenet5"]), ("convert", ["--help"]), ("train", ["recipes"])]
)
def test_python_m_imports_nothing_of_the_working_directory(programs, folder, module, arguments):
    (folder / f"{module}.py").unlink()  # Python itself would run this one
    assert run(programs / "python", "-m", module, *arguments, cwd=folder)
