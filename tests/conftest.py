"""Settings of the whole suite: JAX on the CPU with float64, and compiled programs kept between runs."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Worker processes of xdist get their memory in huge pages: the parity suite touches gigabytes anew for every model, and
# on virtual machines that takes longer than computing with them.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA calls its own hints "machine features" that the host lacks

import jax
import torch

CACHE = Path(__file__).parents[1] / ".cache" / "jax"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
torch.set_num_threads(1)  # small tensors: more threads only wait for each other
