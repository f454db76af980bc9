"""Files that stand in the place of weights, and how to get the weights."""

from pathlib import Path

from jaxzoo.errors import UsageError

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raises UsageError for a Git LFS pointer, a web page and the index of a checkpoint in several files."""
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(_POINTER):
        raise UsageError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it was cloned")
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise UsageError(f"{path} is a web page: the download brought an answer of the server instead of the weights")
    if (text.startswith(b"{") and b'"weight_map"' in start) or path.name.endswith(".index.json"):
        raise UsageError(f"{path} only lists the files of a checkpoint in several parts: give the weights in one file")
