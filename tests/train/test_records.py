"""What a run writes down survives being killed and continued."""

import json

import numpy as np
import pytest

from train.reporting import records


def steps(path):
    return [row["step"] for row in records.lines(path)]


def test_rows_come_back_exactly_and_those_of_a_lost_future_go(tmp_path):
    path = tmp_path / "metrics.csv"
    for step in (1, 2, 3):
        records.append(path, {"step": step, "loss": 0.1 + step, "rate": float("nan")})
    rows = records.append(path, {"step": 2, "loss": 1 / 3, "rate": 1e-30})
    assert [row["step"] for row in rows] == [1, 2]
    assert records.read(path)[1] == {"step": 2, "loss": 1 / 3, "rate": 1e-30}
    assert records.read(tmp_path / "none.csv") == []


def test_lines_are_json_that_everybody_reads(tmp_path):
    path = tmp_path / "steps.jsonl"
    records.line(path, {"step": 1, "loss": float("nan"), "rate": np.float32("inf"), "count": np.int64(3)})
    records.line(path, {"step": 2, "loss": np.float32(0.5), "skipped": True})
    first, second = path.read_text().splitlines()
    assert json.loads(first, parse_constant=pytest.fail) == {"step": 1, "loss": None, "rate": None, "count": 3}
    assert json.loads(second) == {"step": 2, "loss": 0.5, "skipped": True}


def test_lines_are_only_added_while_nothing_is_lost(tmp_path):
    path = tmp_path / "steps.jsonl"
    records.line(path, {"step": 1})
    before = path.stat().st_ino
    for step in range(2, 50):
        records.line(path, {"step": step})
    assert path.stat().st_ino == before
    assert steps(path) == list(range(1, 50))


def test_a_run_that_continues_cuts_back_to_where_it_does(tmp_path):
    path = tmp_path / "steps.jsonl"
    for step in (10, 20, 30, 40):
        records.line(path, {"step": step})
    records.cut_back(path, 30)
    assert steps(path) == [10, 20, 30]
    records.cut_back(path, 25)
    assert steps(path) == [10, 20]
    records.cut_back(tmp_path / "none.jsonl", 5)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_line_takes_the_place_of_those_of_its_step_and_later(tmp_path):
    path = tmp_path / "steps.jsonl"
    for step in (10, 20, 30, 20):
        records.line(path, {"step": step, "loss": float(step)})
    assert steps(path) == [10, 20]


@pytest.mark.parametrize("torn", ['{"step": 3', "\0\0\0\0", '{"step": 3}\n{"st', "3\n", '"step"\n', "[]\n", "\n"])
def test_a_line_that_was_torn_by_a_kill_goes_and_the_others_stay(tmp_path, torn):
    path = tmp_path / "steps.jsonl"
    for step in (1, 2):
        records.line(path, {"step": step})
    with path.open("a") as file:
        file.write(torn)
    assert set(steps(path)) <= {1, 2, 3}
    records.line(path, {"step": 3, "loss": 0.5})
    assert [json.loads(text)["step"] for text in path.read_text().splitlines()] == [1, 2, 3]
    assert records.lines(path)[-1] == {"step": 3, "loss": 0.5}


def test_a_line_longer_than_a_page_is_kept_whole(tmp_path):
    path = tmp_path / "steps.jsonl"
    for step in (1, 2, 3):
        records.line(path, {"step": step, "items": "x" * 100_000})
    records.cut_back(path, 2)
    assert steps(path) == [1, 2]


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "metrics.csv"
    records.append(path, {"step": 1})
    with pytest.raises(OSError, match="no space"), records.replacing(path) as partial:
        partial.write_text("half")
        raise OSError("no space")
    assert records.read(path) == [{"step": 1}] and list(tmp_path.iterdir()) == [path]
