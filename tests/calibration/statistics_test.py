import numpy as np
import pytest
import worker

import dqa_keras as dqa
from dqa_keras.calibration import statistics
from dqa_keras.calibration.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def expected():
    """What one uninterrupted calibration decides, by ranking."""
    states = {}
    for ranking in ("mse", "fisher", "greedy"):
        model = worker.quantized(ranking)
        dqa.calibrate(model, worker.images(), batch_size=worker.BATCH, verbose=0)
        states[ranking] = worker.state(model)
    return states


@pytest.fixture
def computed(monkeypatch):
    """The first image of each round that is computed."""
    seen = []
    compute = statistics._LocalStatistics.compute

    def spy(local, rounds):
        seen.extend(one.first for one in rounds)
        return compute(local, rounds)

    monkeypatch.setattr(statistics._LocalStatistics, "compute", spy)
    return seen


def same(model, states):
    state = worker.state(model)
    return state.keys() == states.keys() and all(
        state[name].tobytes() == states[name].tobytes() for name in states
    )


class Broken(Exception):
    pass


def breaking(x, at):
    """Batches of five, until something is the matter."""
    for start in range(0, at, 5):
        yield x[start : start + 5]
    raise Broken


def run(model, data, path):
    dqa.calibrate(model, data, batch_size=worker.BATCH, verbose=0, checkpoint=path)


@pytest.mark.parametrize("ranking", ["mse", "fisher", "greedy"])
def test_calibration_goes_on_where_it_was_interrupted(
    ranking, expected, computed, tmp_path
):
    path = tmp_path / "c"
    with pytest.raises(Broken):
        run(worker.quantized(ranking), breaking(worker.images(), 60), path)
    assert path.exists()
    computed.clear()
    model = worker.quantized(ranking)
    run(model, worker.images(), path)
    assert same(model, expected[ranking])
    assert computed == [56, 64, 72, 80, 88, 96]
    assert not path.exists()


def test_it_is_interrupted_more_than_once(expected, tmp_path):
    path = tmp_path / "c"
    for at in (20, 45, 75):
        with pytest.raises(Broken):
            run(worker.quantized(), breaking(worker.images(), at), path)
    model = worker.quantized()
    run(model, worker.images(), path)
    assert same(model, expected["mse"])


def test_an_interrupt_within_a_round_keeps_the_rounds_before_it(
    expected, monkeypatch, tmp_path
):
    # The signal comes while the statistics of the fourth round are half taken in.
    path = tmp_path / "c"
    update = statistics.Observer.update
    calls = iter(range(7))

    def interrupted(observer, *arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        update(observer, *arguments)

    monkeypatch.setattr(Checkpoint, "seconds", 0)
    with monkeypatch.context() as patch:
        patch.setattr(statistics.Observer, "update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(worker.quantized(), worker.images(), path)
    model = worker.quantized()
    run(model, worker.images(), path)
    assert same(model, expected["mse"])


def test_bad_images_can_be_mended_without_starting_over(expected, computed, tmp_path):
    x = worker.images()
    bad = x.copy()
    bad[61, 0, 0, 0] = np.nan
    path = tmp_path / "c"
    with pytest.raises(ValueError, match="NaN or infinity in image 61"):
        run(worker.quantized(), bad, path)
    computed.clear()
    model = worker.quantized()
    run(model, x, path)
    assert same(model, expected["mse"])
    assert computed[0] == 56


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[::-1], r"the first 56 images are not those .* not shuffled"),
        (lambda x: x + 1, "the first 56 images are not those"),
        (lambda x: x.astype(np.float64), "the first 56 images are not those"),
        (lambda x: x[:50], "has seen 56 images, but the data holds 50"),
    ],
    ids=["order", "content", "type", "fewer"],
)
def test_other_data_is_refused_and_the_checkpoint_stays(change, message, tmp_path):
    x = worker.images()
    path = tmp_path / "c"
    with pytest.raises(Broken):
        run(worker.quantized(), breaking(x, 60), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        run(worker.quantized(), change(x), path)
    assert path.read_bytes() == before


def test_a_checkpoint_serves_any_config_of_the_same_model(tmp_path):
    path = tmp_path / "c"
    with pytest.raises(Broken):
        run(worker.quantized(), breaking(worker.images(), 60), path)
    model, fresh = (
        dqa.quantize_model(worker.network(), dqa.DQAConfig(bits=5, method="direct"))
        for _ in range(2)
    )
    run(model, worker.images(), path)
    run(fresh, worker.images(), None)
    assert same(model, worker.state(fresh))


def test_a_folder_that_is_not_there_is_named_early(computed, tmp_path):
    with pytest.raises(ValueError, match=r"cannot write .*/none/c"):
        run(worker.quantized(), worker.images(), tmp_path / "none" / "c")
    assert computed == [0]
