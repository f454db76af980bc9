"""Weights that torchvision and timm publish, through their own caches."""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from convert import files
from jaxzoo import UsageError, card
from jaxzoo.home import check_home
from jaxzoo.imagenet import imagenet_classes


def download(name: str, weights: str) -> tuple[Path, str, list[str] | None]:
    """Published weights, through their publisher's cache: the file, the name that `DEFAULT` means, the classes."""
    package, _, builder = card(name).twin.partition(":")
    fetch = {"torchvision": _from_torchvision, "timm": _from_timm}.get(package)
    if fetch is None and card(name).weights:
        raise UsageError(
            f"there is no file {weights}, and the weights {', '.join(card(name).weights)} of {name} are their authors' "
            f"({card(name).paper}): download their file yourself, and give its path"
        )
    if fetch is None or (package == "timm" and not card(name).weights):
        raise UsageError(f"there is no file {weights}, and {name} has no published weights")
    try:
        return fetch(name, builder, weights)
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"cannot download {weights} of {name} ({error}): are you offline? "
            "Fetch it where there is a network, and give the file instead of the name"
        ) from error


def published_as(name: str, path: Path) -> tuple[str | None, list[str] | None]:
    """The name and the classes of the weights that torchvision publishes as a file of this name, which has a digest."""
    package, _, builder = card(name).twin.partition(":")
    if package == "torchvision" and re.search(r"-[0-9a-f]{8}\.pth$", path.name):
        with contextlib.suppress(ImportError):
            from torchvision.models import get_model_weights

            for entry in get_model_weights(builder):
                if Path(entry.url).name == path.name:
                    return entry.name, entry.meta.get("categories")
    return None, None


def _refuse_unknown(name: str, weights: str, choices: Iterable[str]) -> None:
    if weights not in choices:
        known = ", ".join(choices)
        raise UsageError(f"{weights!r} is neither a file nor published weights of {name}, which are: {known}")


def _from_torchvision(name: str, builder: str, weights: str) -> tuple[Path, str, list[str] | None]:
    files.require_torch(f"{weights} is not a file, and fetching published weights", "torchvision")
    import torch
    from torchvision.models import get_model_weights

    choices = get_model_weights(builder).__members__
    _refuse_unknown(name, weights, choices)
    entry = choices[weights]
    check_home(torch.hub.get_dir(), "TORCH_HOME")
    path = Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r"-([0-9a-f]{8,})\.", path.name)
        torch.hub.download_url_to_file(entry.url, str(path), digest and digest[1])
    return path, entry.name, entry.meta.get("categories")


def _from_timm(name: str, builder: str, weights: str) -> tuple[Path, str, list[str] | None]:
    try:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.utils import logging
    except ImportError:
        raise UsageError(f"fetching {weights} of {name} needs: pip install huggingface_hub") from None

    published = list(card(name).weights)
    _refuse_unknown(name, weights, [*published, "DEFAULT"])
    tag = published[0] if weights == "DEFAULT" else weights
    check_home(constants.HF_HUB_CACHE, "HF_HOME")
    logging.set_verbosity_error()  # or it reports each of its attempts
    path = hf_hub_download(f"timm/{builder}.{tag}", "model.safetensors")
    return Path(path), tag, list(imagenet_classes()) if tag.endswith("in1k") else None
