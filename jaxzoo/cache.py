"""JAX's compiled programs, kept from one run to the next."""

import hashlib
import os
from pathlib import Path

import jax

from jaxzoo.home import cache_folder


def keep_compiled_programs() -> None:
    """Has JAX keep compiled programs in jaxzoo's cache folder, unless JAX_COMPILATION_CACHE_DIR names another place.

    Nothing is kept where no such folder can be written. A home directory may be shared among machines, and a program
    compiled for one CPU can crash on another.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cpu = Path("/proc/cpuinfo")
        flags = (
            [line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))]
            if cpu.exists()
            else []
        )
        name = hashlib.sha256(repr((os.uname().machine, flags[:1])).encode()).hexdigest()[:12]
        if folder := cache_folder(f"compiled-{name}"):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
