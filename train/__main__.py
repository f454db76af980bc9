"""`python -m train`."""

import sys

from jaxzoo.errors import exit_on_usage_error
from train.config import parse


def main() -> None:
    """Trains as the command line says. Exits with 0, with 2 after bad input, or with 128 + signal when interrupted."""
    with exit_on_usage_error():
        config = parse()
        try:
            from train.loop import run

            code = run(config)
        except KeyboardInterrupt:  # before there was anything to save
            code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
