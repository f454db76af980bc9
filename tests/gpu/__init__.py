"""What can be said on a machine with a GPU only, by one command: `python -m tests.gpu --minutes 12 --out DIR`."""
