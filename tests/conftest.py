"""Settings of the whole suite: JAX on the CPU with float64, compiled programs kept where the trainer keeps its own."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Worker processes of xdist get their memory in huge pages: the parity suite touches gigabytes anew for every model, and
# on virtual machines that takes longer than computing with them.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA calls its own hints "machine features" that the host lacks

import jax
import torch

from jaxzoo.cache import keep_compiled_programs

keep_compiled_programs()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
torch.set_num_threads(1)  # small tensors: more threads only wait for each other


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every test for every model; see the marker `full`")
    parser.addoption("--parity-table", metavar="FILE", help="write the measured errors of every model to this file")


def pytest_collection_modifyitems(config, items):
    """Without --full, tests marked `full` run for the representatives of each family only, and the parity ladder for
    all models that segment."""
    if config.getoption("full"):
        return
    import jaxzoo
    from tests.representatives import representatives  # builds every twin, which not every run needs

    def chosen(item) -> bool:
        name = item.callspec.params["name"]
        segments = "parity" in item.path.parts and jaxzoo.card(name).task == "segmentation"
        return segments or name in representatives()

    kept, left_out = [], []
    for item in items:
        (kept if not item.get_closest_marker("full") or chosen(item) else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept
