"""Stage `warm`: torch.compile's programs for `speed`, which torch keeps on disk; many are made at the same time."""

from collections.abc import Iterator

from tests.gpu import speed
from tests.gpu.child import Conditions


def names(dry_run: bool) -> list[str]:
    return [f"{name}:{layout}" for name in speed.names(dry_run) for layout in speed.LAYOUTS]


def run(name: str, conditions: Conditions) -> Iterator[dict]:
    model, layout = name.split(":")
    yield {"compile s": speed.torchs_side(model, conditions, layout).compile_seconds}
