"""PyTorch ↔ Flax: the same weights on both sides.

    model = convert.load("swin_t", "swin_t.pth")                # a zoo model, filled
    convert.load_state_dict(module, convert.read("mine.pth"))   # your own NNX module, names as in its torch twin
    state_dict = convert.state_dict(module)                     # and back

On the command line: `python -m convert --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors, which do not follow `__getattr__`
    from convert.files import read as read
    from convert.loading import load as load
    from convert.rules import load_state_dict as load_state_dict
    from convert.rules import state_dict as state_dict

_HOME = {
    "load": "convert.loading",
    "load_state_dict": "convert.rules",
    "read": "convert.files",
    "state_dict": "convert.rules",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    # JAX is imported when it is first needed, so that `--help` answers at once.
    if name not in _HOME:
        raise AttributeError(f"module 'convert' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
