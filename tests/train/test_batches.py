"""Images become batches: the same ones for any number of threads and processes, and in spite of broken files."""

import contextlib
import threading
import time

import numpy as np
import pytest
from grain.experimental import assert_equal_output_after_checkpoint

from jaxzoo import UsageError
from train.data import prefetch
from train.data.batches import EvaluationBatches, TrainingBatches, epoch_order
from train.data.prefetch import Waiting, on_device, read_ahead


class Numbers:
    """A source whose items are their own indices; those in `broken` cannot be read."""

    def __init__(self, count, broken=()):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.broken:
            raise UsageError(f"{self.name(index)} cannot be read")
        return index

    def name(self, index):
        return f"number {index}"


def noisy(item, rng):
    return {"index": np.int64(item), "noise": rng.random(3)}


def plain(item):
    return {"index": np.int64(item), "picture": np.full((2, 2), 1 + item)}


def training(count=23, size=5, seed=5, broken=(), **options):
    return TrainingBatches(Numbers(count, broken), noisy, size, seed, **options)


def stream(workers, start=0, stop=9, **options):
    return list(read_ahead(training(**options), start, stop, workers=workers))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


# Buckets

BUCKETS = [[0, 3, 6, 9, 12, 15, 18, 21], [1, 4, 7, 10, 13, 16, 19, 22, 2, 5, 8], [11, 14]]


def test_every_batch_is_of_one_bucket_and_an_epoch_shows_no_image_twice():
    made = training(size=4, buckets=BUCKETS)
    assert made.per_epoch == 2 + 2 + 0
    orders = []
    for epoch in range(6):
        found = [made(4 * epoch + number)["index"].tolist() for number in range(4)]
        assert all(set(part) <= set(BUCKETS[made.bucket(4 * epoch + i)]) for i, part in enumerate(found))
        assert len({index for part in found for index in part}) == 16
        orders.append([made.bucket(4 * epoch + i) for i in range(4)])
    assert all(sorted(order) == [0, 0, 1, 1] for order in orders) and len({*map(tuple, orders)}) > 1


@pytest.mark.parametrize("start", [1, 5, 6])
def test_a_stream_of_buckets_continues_at_any_batch_and_processes_share_each(start):
    whole = stream(2, size=4, buckets=BUCKETS)
    assert_same(stream(3, start, size=4, buckets=BUCKETS), whole[start:])
    halves = [stream(1, size=4, buckets=BUCKETS, process=process, processes=2) for process in range(2)]
    for batch, *parts in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(batch["noise"], np.concatenate([part["noise"] for part in parts]))


def test_a_substitute_is_of_the_same_bucket():
    made = training(size=4, buckets=BUCKETS, broken=(0, 1, 3), strict=False, report=lambda text: None)
    for number in range(12):
        assert set(made(number)["index"].tolist()) <= set(BUCKETS[made.bucket(number)]) - {0, 1, 3}


def test_buckets_that_are_all_smaller_than_a_batch_are_refused():
    with pytest.raises(UsageError, match="--batch-size 12 is more than the 11 training images of any size"):
        training(size=12, buckets=BUCKETS)


# Order


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_do_not_depend_on_the_number_of_workers(workers):
    assert_same(stream(workers), [training()(i) for i in range(9)])


@pytest.mark.parametrize("start", [1, 4, 6])
def test_a_stream_continues_at_any_batch(start):
    assert_same(stream(2, start), stream(2)[start:])


def test_a_stream_is_restored_at_every_batch():
    """grain's own test of checkpoints."""
    assert_equal_output_after_checkpoint(
        prefetch.dataset(training(repeats=2, broken={3}, strict=False), 0, 9, workers=3)
    )


def test_a_stream_stays_a_batch_ahead_of_what_is_asked_for_however_many_workers_there_are():
    made = []
    batches = training(count=4096, size=512)
    batches.example = lambda item, rng: made.append(item) or noisy(item, rng)
    stream = read_ahead(batches, 0, 8, workers=16)
    next(stream)
    deadline = time.monotonic() + 20
    while len(made) < 2 * 512 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert 2 * 512 <= len(made) <= 2 * 512 + 16 * prefetch.PIECE


def test_an_epoch_shows_no_image_twice_and_the_next_one_has_another_order_and_other_noise():
    batches = stream(1)
    first, second = (np.concatenate([b["index"] for b in batches[i : i + 4]]) for i in (0, 4))
    assert len(set(first)) == len(set(second)) == 20
    assert list(first) != list(second)
    noise = {index: set() for index in range(23)}
    for batch in batches[:8]:
        for index, values in zip(batch["index"], batch["noise"], strict=True):
            noise[int(index)].add(tuple(values))
    assert max(map(len, noise.values())) == 2


def test_another_seed_gives_another_order():
    assert list(stream(1)[0]["index"]) != list(stream(1, seed=6)[0]["index"])


def test_a_batch_says_which_images_it_holds():
    for batch in stream(2):
        assert batch["indices"].dtype == np.int32
        np.testing.assert_array_equal(batch["indices"], batch["index"])


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UsageError, match="--batch-size 24 is more than the 23 training images"):
        training(size=24)


# Repeated augmentation


def test_with_repeats_an_epoch_is_as_long_and_each_of_its_images_comes_several_times_in_a_row():
    order = epoch_order(10, np.random.default_rng(0), 3)
    assert len(order) == 10
    assert [order[0]] * 3 + [order[3]] * 3 + [order[6]] * 3 + [order[9]] == list(order)
    assert len(set(order)) == 4
    np.testing.assert_array_equal(np.sort(epoch_order(10, np.random.default_rng(0))), np.arange(10))


def test_repetitions_of_an_image_differ_and_are_never_neighbours_in_a_batch():
    batches = training(count=60, size=12, repeats=3)
    for batch in map(batches, range(batches.per_epoch)):
        assert sorted(np.unique(batch["index"], return_counts=True)[1]) == [3] * 4
        assert len(np.unique(batch["noise"], axis=0)) == 12
        assert (batch["index"] != np.roll(batch["index"], 1)).all()


def test_repetitions_of_an_image_are_shared_among_processes():
    parts = [training(count=60, size=12, repeats=3, process=p, processes=3)(0) for p in range(3)]
    assert all(len(set(part["index"])) == 4 for part in parts)
    assert len({tuple(sorted(part["index"])) for part in parts}) == 1


# Processes


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_every_batch_without_overlap_and_in_the_order_of_one(processes):
    options = {"count": 45, "size": 6, "repeats": 2, "broken": {7, 30}, "strict": False, "report": str}
    whole = training(**options)
    parts = [training(**options, process=process, processes=processes) for process in range(processes)]
    for i in range(2 * whole.per_epoch):
        pieces = [part(i) for part in parts]
        assert {len(piece["index"]) for piece in pieces} == {6 // processes}
        assert_same([{key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}], [whole(i)])


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_evaluation_counts_every_image_once_over_all_processes(processes):
    parts = [EvaluationBatches(Numbers(21), plain, 8, process=p, processes=processes) for p in range(processes)]
    batches = [part(i) for i in range(len(parts[0])) for part in parts]
    assert {len(batch["mask"]) for batch in batches} == {8 // processes}
    seen = np.concatenate([batch["index"][batch["mask"]] for batch in batches])
    np.testing.assert_array_equal(seen, np.arange(21))
    for batch in batches:
        np.testing.assert_array_equal(batch["indices"], np.where(batch["mask"], batch["index"], -1))
        assert not batch["picture"][~batch["mask"]].any()


@pytest.mark.parametrize(
    "make", [training, lambda size, **options: EvaluationBatches(Numbers(9), plain, size, **options)]
)
def test_a_batch_that_processes_cannot_share_is_refused(make):
    with pytest.raises(
        UsageError, match="--batch-size 5 cannot be shared equally among 2 processes; take a multiple of 2"
    ):
        make(size=5, process=0, processes=2)


# Images that cannot be read


def test_a_broken_image_is_reported_once_counted_and_replaced_by_the_same_one_however_it_is_read():
    said = []
    batches = training(broken={3, 8}, strict=False, report=said.append)
    ours = list(read_ahead(batches, 0, 40, workers=4))
    assert sorted(said) == ["left out: number 3 cannot be read", "left out: number 8 cannot be read"]
    assert batches.broken == {3: "number 3", 8: "number 8"}
    assert_same(ours, stream(1, stop=40, broken={3, 8}, strict=False, report=str))
    whole = stream(1, stop=40)
    for batch, other in zip(ours, whole, strict=True):
        kept = ~np.isin(other["index"], [3, 8])
        assert_same([{key: batch[key][kept] for key in batch}], [{key: other[key][kept] for key in other}])
        assert not np.isin(batch["index"], [3, 8]).any()
    stand_ins = np.concatenate([batch["index"][other["index"] == 3] for batch, other in zip(ours, whole, strict=True)])
    assert len(set(stand_ins)) > 4  # another one in every epoch


def test_stages_of_a_run_report_a_broken_image_once_together():
    said = []
    first = training(broken={3}, strict=False, report=said.append)
    second = first.with_example(lambda item, rng: noisy(-item, rng))
    for i in range(8):
        np.testing.assert_array_equal(second(i)["index"], -first(i)["index"])
    assert len(said) == 1 and second.broken == first.broken == {3: "number 3"}


def test_a_broken_image_is_left_out_of_evaluation():
    said = []
    batches = EvaluationBatches(Numbers(9, {0, 1, 2, 6}), plain, 3, strict=False, report=said.append)
    seen = [batches(i) for _ in range(2) for i in range(3)]  # two epochs
    assert [list(batch["indices"]) for batch in seen[:3]] == [[-1, -1, -1], [3, 4, 5], [-1, 7, 8]]
    assert [list(batch["mask"]) for batch in seen[:3]] == [[False] * 3, [True] * 3, [False, True, True]]
    assert len(said) == len(batches.broken) == 4


def test_strict_data_stops_at_a_broken_image():
    with pytest.raises(UsageError, match="number 3 cannot be read"):
        stream(2, broken={3}, strict=True)
    with pytest.raises(UsageError, match="number 3 cannot be read"):
        EvaluationBatches(Numbers(9, {3}), plain, 9)(0)


def test_a_source_of_which_nothing_can_be_read_is_refused():
    with pytest.raises(UsageError, match="100 images in a row cannot be read"):
        stream(1, broken=range(23), strict=False, report=str)
    with pytest.raises(UsageError, match="none of the first held-out images can be read"):
        EvaluationBatches(Numbers(9, range(9)), plain, 3, strict=False, report=str)(0)


# On the way to the device


def test_batches_are_put_on_the_device_in_order_and_no_more_than_two_ahead():
    put, taken = [], []
    batches = on_device(iter(range(10)), lambda batch: put.append(batch) or -batch)
    for batch in batches:
        taken.append(batch)
        expected, deadline = min(10, len(taken) + 2), time.monotonic() + 5
        while len(put) < expected and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.005)
        assert len(put) == expected
    assert taken == [-i for i in range(10)]


def test_an_error_on_the_way_is_raised_when_its_turn_comes():
    def batches():
        yield 1
        yield 2
        raise UsageError("no disk")

    ours = on_device(batches(), lambda batch: batch)
    assert [next(ours), next(ours)] == [1, 2]
    with pytest.raises(UsageError, match="no disk"):
        next(ours)


def test_a_stream_to_the_device_that_is_left_early_leaves_no_thread_behind():
    with contextlib.closing(on_device(iter(range(100)), lambda batch: batch)) as batches:
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        assert "on-device" in [thread.name for thread in threading.enumerate()]
    assert "on-device" not in [thread.name for thread in threading.enumerate()]


def test_time_spent_waiting_for_batches_is_measured():
    def slow():
        for i in range(3):
            time.sleep(0.02)
            yield i

    batches, seen, begin = Waiting(slow()), [], time.perf_counter()
    for batch in batches:
        seen.append(batch)
        time.sleep(0.1)
    assert seen == [0, 1, 2]
    assert 0.06 <= batches.seconds <= time.perf_counter() - begin - 0.3
