import keras
import numpy as np
import pytest

import dqa_keras as dqa
from dqa_keras.calibration import checkpoint
from dqa_keras.calibration.checkpoint import Checkpoint, Progress
from dqa_keras.calibration.observers import Observer


def network(seed=0, units=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(units),
            dqa.layers.DQA(bits=3, name="first"),
            dqa.layers.Direct(bits=3, name="second"),
        ]
    )


@pytest.fixture(scope="module")
def model():
    return network()


def observed(samples):
    observer = Observer(samples.shape[1])
    observer.update(samples, samples.min(0), samples.max(0))
    return observer


@pytest.fixture
def progress():
    random = np.random.default_rng(0)
    both = random.normal(size=(50, 3)).astype(np.float32)
    observers = {"first": observed(both), "second": observed(abs(both))}
    return Progress(7, 123, observers, {5: np.array([0.5, np.nan])})


@pytest.fixture
def kept(model, progress, tmp_path):
    """A checkpoint that has been written."""
    kept = Checkpoint(tmp_path / "c", model, 32, None)
    kept.save(progress)
    return kept


def same(a, b):
    a, b = a.arrays(), b.arrays()
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_what_is_loaded_is_what_was_saved(kept, progress):
    loaded = kept.load()
    assert (loaded.images, loaded.digest) == (7, 123)
    assert list(loaded.observers) == ["first", "second"]
    for name, observer in progress.observers.items():
        assert same(loaded.observers[name], observer)
    assert list(loaded.errors) == [5]
    np.testing.assert_array_equal(loaded.errors[5], progress.errors[5])


def test_what_is_loaded_goes_on_like_what_was_saved(kept, progress):
    more = np.full((1, 3), -1000, np.float32)
    loaded = kept.load()
    for observers in (loaded.observers, progress.observers):
        observers["second"].update(more, more[0], more[0])
    assert same(loaded.observers["second"], progress.observers["second"])


def test_no_file_is_no_progress(model, tmp_path):
    assert Checkpoint(tmp_path / "none", model, 32, None).load() == Progress()
    assert Checkpoint(None, model, 32, None).load() == Progress()


def test_nothing_is_written_without_a_path_or_before_the_first_image(model, tmp_path):
    Checkpoint(None, model, 32, None).save(Progress(1))
    Checkpoint(tmp_path / "c", model, 32, None).save(Progress())
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_removed_twice(kept):
    kept.remove()
    kept.remove()
    assert not kept.path.exists()


def test_every_changed_or_missing_byte_is_found(kept):
    whole = kept.path.read_bytes()
    random = np.random.default_rng(0)
    start = len(checkpoint._MAGIC)
    for position in [start, len(whole) - 1, *random.integers(start, len(whole), 30)]:
        spoilt = bytearray(whole)
        spoilt[position] ^= 1 << int(random.integers(8))
        kept.path.write_bytes(spoilt)
        with pytest.raises(ValueError, match=r"is damaged.*Delete it to start over"):
            kept.load()
        kept.path.write_bytes(whole[:position])
        with pytest.raises(ValueError, match="is damaged"):
            kept.load()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"DQA checkpoint 2\n" * 9])
def test_other_files_are_refused_and_left_alone(content, kept):
    kept.path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint of this version"):
        kept.load()
    assert kept.path.read_bytes() == content


def test_a_folder_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}: Is a directory"):
        Checkpoint(tmp_path, model, 32, None).load()


@pytest.mark.parametrize(
    ("other", "batch_size"),
    [(network(seed=1), 32), (network(units=5), 32), (network(), 16)],
    ids=["weights", "channels", "batch size"],
)
def test_checkpoints_of_other_calibrations_are_refused(other, batch_size, kept):
    with pytest.raises(ValueError, match="belongs to another model"):
        Checkpoint(kept.path, other, batch_size, None).load()


def test_names_and_calibration_do_not_make_another_model(kept):
    twin = network()
    dqa.calibrate(twin, np.random.default_rng(0).random((9, 4)), verbose=0)
    for layer, name in zip(twin.layers[1:], ("third", "fourth"), strict=True):
        layer.name = name
    assert list(Checkpoint(kept.path, twin, 32, None).load().observers) == [
        "third",
        "fourth",
    ]


def test_the_digest_is_of_order_shape_type_and_content():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    variants = [[x], [x[::-1]], [x.T], [x.reshape(4, 3)], [x.astype(int)], [x, x], []]
    assert len({checkpoint.digest(arrays) for arrays in variants}) == len(variants)
    whole = checkpoint.digest([x, x[:1]])
    assert checkpoint.digest([x[:1]], checkpoint.digest([x])) == whole
