"""Settings of the whole suite: JAX on the CPU with float64, compiled programs kept where the trainer keeps its own."""

import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Worker processes of xdist get their memory in huge pages: the parity suite touches gigabytes anew for every model, and
# on virtual machines that takes longer than computing with them.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA calls its own hints "machine features" that the host lacks

import jax
import pytest
import torch

from jaxzoo.cache import keep_compiled_programs
from tests.representatives import REPRESENTATIVES

keep_compiled_programs()
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
torch.set_num_threads(1)  # small tensors: more threads only wait for each other

START = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every test for every model; see the marker `full`")
    parser.addoption("--parity-table", metavar="FILE", help="write the measured errors of every model to this file")


def pytest_configure(config):
    """Without --full, tests compile in two thirds of the time: what they run is small. --full runs users' programs."""
    if not config.getoption("full"):
        os.environ["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"


def pytest_itemcollected(item):
    """The tests of a file go to one worker, which sets up and compiles what they share; those of parity by model."""
    if item.config.pluginmanager.hasplugin("xdist") and not item.get_closest_marker("xdist_group"):
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(config, items):
    """Without --full, tests marked `full` run for the models that the mark names, or for the representatives."""
    if config.getoption("full"):
        return

    def chosen(item) -> bool:
        mark = item.get_closest_marker("full")
        return mark is None or item.callspec.params["name"] in (mark.args or REPRESENTATIVES)

    kept, left_out = [], []
    for item in items:
        (kept if chosen(item) else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


def pytest_sessionstart(session):
    session.config.stash[START] = time.monotonic()


def pytest_terminal_summary(terminalreporter, config):
    """How long it took, which the suite's documentation promises."""
    minutes = (time.monotonic() - config.stash[START]) / 60
    terminalreporter.write_line(f"{'--full' if config.getoption('full') else 'without --full'}: {minutes:.1f} minutes")
