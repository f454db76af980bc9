"""The folder of a run and its config.yaml: all options, and what the run was made with."""

import dataclasses
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import yaml

import jaxzoo
from jaxzoo.errors import UsageError
from train.config.options import Config

ABOUT, AFTER = "about", " after step "  # names in config.yaml that are no options
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
# What may change the numbers of a run that is continued with another one.
DECISIVE = ("jaxzoo", "commit", "jax", "jaxlib", "flax", "optax", "numpy", "pillow")


def read(run: Path) -> Config:
    """The configuration that a run folder was started with. Raises UsageError if it is no run folder."""
    file = run / "config.yaml"
    if not file.is_file():
        raise UsageError(f"{run} is no run to continue: there is no {file}")
    try:
        values = yaml.safe_load(file.read_text())
        values = {name: value for name, value in values.items() if not name.startswith(ABOUT)}
        return Config(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except (yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not as `python -m train` wrote it: {error}") from None


def write(config: Config, run: Path, step: int = 0) -> None:
    """Writes config.yaml, at once or not at all: all options, and what the run was made with.

    That is `about` for its start, and `about after step N` each time that it was continued.
    """
    values = dataclasses.asdict(config) | {"resume": None, "eval_only": False}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    made = {before: about for before, about in made_with(run).items() if before < step} | {step: provenance()}
    told = {ABOUT + (f"{AFTER}{before}" if before else ""): about for before, about in made.items()}
    partial = run / ".config.yaml.partial"
    partial.write_text(yaml.safe_dump(values | told, sort_keys=False))
    partial.replace(run / "config.yaml")


def made_with(run: Path) -> dict[int, dict[str, str]]:
    """The provenance of a run by the step after which it was started or continued; empty for a new one."""
    file = run / "config.yaml"
    values = yaml.safe_load(file.read_text()) if file.exists() else {}
    return {int(name[len(ABOUT + AFTER) :] or 0): about for name, about in values.items() if name.startswith(ABOUT)}


def changed_since(run: Path) -> list[str]:
    """Differences between now and the last time that the run was started or continued, if they may change its numbers;
    such as "jax 0.10.1 instead of 0.9"."""
    made, now = made_with(run), provenance()
    then = made[max(made)] if made else now
    changed = [name for name in DECISIVE if then.get(name, now[name]) != now[name]]
    return [f"{name} {now[name]} instead of {then[name]}" for name in changed]


def provenance() -> dict[str, str]:
    """Versions, the git commit of the code if it is a checkout, and the devices."""
    import jax

    here = Path(__file__).parents[2]
    git = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return {
        "jaxzoo": jaxzoo.__version__,
        "commit": git.stdout.strip() if (here / ".git").exists() and git.returncode == 0 else "none",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": str(jax.process_count()),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # not all of them are needed for every run
        return "none"


def located(config: Config) -> Config:
    """`config` with absolute paths, which mean the same to who continues the run from another folder; what does not
    exist stays as it is."""
    kind, colon, place = (config.data or "").partition(":")
    paths = {"data": f"{kind}:{Path(place).absolute()}"} if colon and kind != "tfds" and Path(place).exists() else {}
    for name in ("weights", "weights_backbone"):
        weights = getattr(config, name)
        if weights and Path(weights.partition("#")[0]).exists():  # otherwise the name of published ones
            paths[name] = str(Path(weights).absolute())
    return dataclasses.replace(config, **paths)


def make_folder(config: Config) -> Path:
    """Makes the folder of a new run, --out or one under runs/ that is named by the time. Raises UsageError.

    Of two runs that begin in the same second the second one's name ends in -2.
    """
    data = re.sub(r"[^\w.-]+", "_", (config.data or "").removeprefix("tfds:").rstrip("/").split("/")[-1])
    name = config.out or f"runs/{config.model}-{data}-{time.strftime('%Y%m%d-%H%M%S')}"
    for folder in (Path(name), *(Path(f"{name}-{number}") for number in range(2, 1000))):
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if folder.exists() and not config.out:
                continue
            raise UsageError(f"cannot make the folder {folder}: {error.strerror}; give another --out") from None
    raise UsageError(f"{name} and many like it exist already; give --out")
