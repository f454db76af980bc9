"""`python -m tests.train.soak --minutes 60`: runs that are killed again and again have to equal those that are not.

Every round takes one of the groups of options in `tests.train.test_options`, lets a run end undisturbed, and kills
another ten times at random moments before it may end: after so many seconds, or when it is about to touch a file, as
often as not in the middle of saving. What differs is named, with the seed that makes it happen again (but for kills by
the clock, which need luck).
"""

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jaxzoo.cache import keep_compiled_programs
from tests.train.launch import launcher, train
from tests.train.same import assert_same_run

FILES = 200  # A kill comes at one of the first so many files that a program writes, renames or makes,
PART = (0.05, 0.3)  # or after such a part of the time that the whole run takes.


def killed_again_and_again(
    options: Sequence[object], again: Sequence[object], run: Path, kills: Iterable[Mapping], **environment: object
) -> list[str]:
    """Starts a run with `options`, continues it with `again` after each of these `kills`, and at last lets it end.

    Kills are what the launcher takes: `after` seconds or, of `tests.train.trouble`, DIE_AT and DIE_AT_FILE. Returns
    those that did not come too late, and the step of the newest checkpoint then.
    """
    done = []
    for kill in [*kills, {}]:
        begun = (run / "config.yaml").exists()
        if not begun and run.exists():
            shutil.rmtree(run)  # killed before there was anything to continue
        said = launcher()(*([*again, "--resume", run] if begun else [*options, "--out", run]), **kill, **environment)
        assert launcher().code in (0, -9) and "Traceback" not in said, f"{done} {kill}: {said}"
        if launcher().code:
            steps = [int(folder.name) for folder in (run / "checkpoints").glob("[0-9]*")]
            torn = [path.name for path in run.glob("**/.*")]
            done.append(f"{kill}: step {max(steps, default=0)}{', with ' + ', '.join(torn) if torn else ''}")
    return done


def random_kills(rng: random.Random, count: int, whole: float) -> Iterator[dict[str, float]]:
    """So many, by the clock or by the number of files; `whole` is how many seconds a run takes that nobody kills."""
    for _ in range(count):
        by_clock = rng.random() < 0.5
        yield {"after": rng.uniform(*PART) * whole} if by_clock else {"DIE_AT_FILE": rng.randint(1, FILES)}


def main() -> None:
    from tests.train.test_options import BASIS, ENVIRONMENT, GROUPS, make_places, words

    parser = argparse.ArgumentParser(prog="python -m tests.train.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="no round begins later than that")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32, help="of the first round")
    parser.add_argument("--kills", type=int, default=10, help="of every round")
    given = parser.parse_args()
    keep_compiled_programs()
    start, seed, kills = time.monotonic(), given.seed, 0
    with tempfile.TemporaryDirectory() as folder:
        places = make_places(Path(folder))
        while time.monotonic() - start < 60 * given.minutes:
            rng = random.Random(seed)
            name = rng.choice(list(GROUPS))
            environment, place = {"PLAIN": 1} | ENVIRONMENT.get(name, {}), Path(folder) / "round"
            options = f"{BASIS} {GROUPS[name]} --epochs {rng.choice((2, 4))} --save-every {rng.choice((1, 2, 3))}"
            print(f"seed {seed}: {options}", flush=True)
            place.mkdir()
            train(*words(options, places), "--out", place / "run-whole", **environment)
            moments = random_kills(rng, given.kills, launcher().seconds)
            done = killed_again_and_again(words(options, places), [], place / "run", moments, **environment)
            print("".join(f"  killed {how}\n" for how in done), end="", flush=True)
            assert_same_run(place / "run", place / "run-whole")
            shutil.rmtree(place)
            seed, kills = seed + 1, kills + len(done)
        print(f"{seed - given.seed} runs were killed {kills} times, and equal those that were not")


if __name__ == "__main__":
    main()
