"""Memory that a process keeps for the next step: of Linux with glibc, which CI has."""

import os
import subprocess
import sys

# Allocates and frees 64 MB a few times, in a thread of its own too, as XLA does, and prints the page faults after that.
PROGRAM = """
import resource, sys, threading
import numpy as np
from jaxzoo.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def work():
    for number in range(12):
        if number == 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(2**23)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
for target in (work, lambda: (thread := threading.Thread(target=work), thread.start(), thread.join())):
    target()
"""


def faults(mode):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PROGRAM, mode]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [int(line) for line in result.stdout.split()]


def test_large_blocks_are_not_touched_anew_by_every_step():
    assert max(faults("kept")) < 100
    assert min(faults("given back")) > 100
