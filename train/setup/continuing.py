"""Whether a run can be continued: its checkpoints, its model, its data."""

import contextlib
from pathlib import Path

import convert.store
from jaxzoo.errors import UsageError
from train.reporting.progress import say


def stored_in(folder: Path) -> dict:
    """What the checkpoints of a run say of themselves: the first that can be read, since all say the same of the model.

    Raises:
      UsageError: none can.
    """
    places = [*(folder / "checkpoints").glob("[0-9]*"), folder / "best"]
    for place in places:
        with contextlib.suppress(UsageError):
            return convert.store.read_manifest(place)
    raise UsageError(f"no checkpoint of {folder} can be read")


def check_classes(then: list[str], now: list[str], run: Path) -> None:
    """Raises UsageError if the data of a run that wants to continue has other classes than it had."""
    if then != now:
        gone, new = [c for c in then if c not in now], [c for c in now if c not in then]
        parts = [f"{', '.join(names[:3])} {what}" for names, what in ((gone, "gone"), (new, "new")) if names]
        raise UsageError(f"{run} was trained on other classes than its data has now: {'; '.join(parts)}")


def check_manifest(found: dict, expected: dict, run: Path, moved_to: str | None = None) -> None:
    """Compares a checkpoint with the run that wants to continue, whose images lie somewhere else, if so.

    Raises:
      UsageError: it is one of another model; or they have moved, and are no longer the same.
    """
    if found["model"] != expected["model"]:
        raise UsageError(f"{run} holds checkpoints of {found['model']}, but its config.yaml says {expected['model']}")
    then, now, local = found["train"], expected["train"], "batch_norm_parts"
    if local in then and then[local] != now[local]:  # older checkpoints do not say
        devices = f"--batch-norm local had {then[local]} devices to share a batch among, and has {now[local]} now"
        say(f"{devices}: this continues, but not as if never stopped")
    if then["images"] == now["images"] and then.get("names", now["names"]) == now["names"]:
        return
    counts = then["images"], now["images"]
    what = "had {} training images and has {} now".format(*counts) if counts[0] != counts[1] else "has other images now"
    if moved_to:
        raise UsageError(
            f"{run} cannot be continued with {moved_to}, which are not its images: the data {what}; a new run can "
            f"start from its weights, --weights {run}"
        )
    say(f"the data {what}: this continues, but not as if never stopped")
