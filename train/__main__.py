"""`python -m train`."""

import hashlib
import os
import sys
from pathlib import Path


def main() -> None:
    """Trains as the command line says. Exits with 0, with 2 after bad input, or with 128 + signal when interrupted."""
    # XLA writes an alarming paragraph to stderr whenever it loads a program for the CPU from the cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from jaxzoo.errors import UsageError, exit_on_usage_error
    from train.config import parse

    with exit_on_usage_error():
        config = parse()
        import jax

        from train.loop import run

        keep_compiled_programs()
        try:
            sys.exit(run(config))
        except KeyboardInterrupt:  # before there was anything to save, or the second one
            sys.exit(130)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UsageError("the device has too little memory; a smaller --batch-size or --image-size helps") from None


def keep_compiled_programs() -> None:
    """Has JAX keep what it compiles under ~/.cache/jaxzoo, unless JAX_COMPILATION_CACHE_DIR names another place.

    A home directory may be shared among machines, and a program compiled for one CPU can crash on another.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cpu = Path("/proc/cpuinfo")
        flags = (
            [line for line in cpu.read_text().splitlines() if line.startswith(("flags", "Features"))]
            if cpu.exists()
            else []
        )
        name = hashlib.sha256(repr((os.uname().machine, flags[:1])).encode()).hexdigest()[:12]
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "jaxzoo" / f"compiled-{name}"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


if __name__ == "__main__":
    main()
