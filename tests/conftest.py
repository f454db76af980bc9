"""Settings of the whole suite: JAX on the CPU with float64, and compiled programs kept between runs."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA calls its own hints "machine features" that the host lacks

import jax
import torch

CACHE = Path(__file__).parents[1] / ".cache" / "jax"

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
torch.set_num_threads(1)  # small tensors: more threads only wait for each other
