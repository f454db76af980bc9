"""The files by which a run explains itself: pictures, tables, report.html, TensorBoard events.

One file here per kind. `page.write(folder)` puts everything that lies in a run's folder into one page.
"""

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def worth_less_than_the_run(say: Callable[[str], None]) -> Iterator[None]:
    """Whatever goes wrong while pictures are drawn and pages are written is said, and training goes on."""
    try:
        yield
    except Exception as error:
        say(f"the report is not complete: {type(error).__name__}: {error}")
