import keras
import numpy as np
import pytest
import tensorflow as tf

import dqa_keras as dqa
from dqa_keras.backend import data_adapter

X = np.arange(10, dtype=np.float32).reshape(5, 2)
Y = np.arange(5)


class Pairs(keras.utils.PyDataset):
    """Batches of two of X, with labels."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        return X[rows], Y[rows]


def read(data, batch_size=2):
    return [np.asarray(x).tolist() for x in data_adapter.batches(data, batch_size)]


IN_TWOS = [X[:2].tolist(), X[2:4].tolist(), X[4:].tolist()]


@pytest.mark.parametrize(
    "data",
    [
        X,
        tf.constant(X),
        (X,),
        (X, Y),
        (X, Y, Y),
        tf.data.Dataset.from_tensor_slices(X).batch(2),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(2),
        Pairs(),
    ],
    ids=["array", "tensor", "x", "x y", "x y w", "tf.data", "tf.data x y", "PyDataset"],
)
def test_x_of_each_batch_and_their_number(data):
    assert read(data) == IN_TWOS
    assert data_adapter.batch_count(data, 2) == 3


@pytest.mark.parametrize("labels", [False, True])
def test_generators_are_read_to_their_end(labels):
    batches = [X[:2], X[2:4], X[4:]]
    data = ((x, Y[:2]) if labels else x for x in batches)
    assert data_adapter.batch_count(data, 2) is None
    assert read(data) == IN_TWOS


def test_a_dictionary_of_arrays_is_cut_key_by_key():
    batches = list(data_adapter.batches({"a": X, "b": Y}, 4))
    assert [set(batch) for batch in batches] == [{"a", "b"}] * 2
    assert batches[1]["a"].tolist() == X[4:].tolist()
    assert batches[1]["b"].tolist() == [4]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_list_of_arrays_is_several_inputs_and_no_labels(count):
    batches = list(data_adapter.batches([X] * count, 5))
    assert len(batches) == 1
    assert [part.tolist() for part in batches[0]] == [X.tolist()] * count


def test_inputs_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"same length.*\[5, 3\]"):
        list(data_adapter.batches({"a": X, "b": X[:3]}, 2))


@pytest.mark.parametrize(
    "data",
    [
        X[:0],
        iter([]),
        tf.data.Dataset.from_tensor_slices(X[:0]).batch(2),
    ],
    ids=["array", "iterator", "tf.data"],
)
def test_nothing_is_refused(data):
    with pytest.raises(ValueError, match="dataset is empty"):
        list(data_adapter.batches(data, 2))


@pytest.mark.parametrize(
    ("data", "kind"), [("images", "str"), (b"x", "bytes"), (7, "int"), (None, "None")]
)
def test_what_is_no_data_is_refused_by_its_type(data, kind):
    with pytest.raises(ValueError, match=f"data must be arrays.*Received: {kind}"):
        list(data_adapter.batches(data, 2))


@pytest.mark.parametrize("structure", ["one", "list"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (X.tolist(), "must be arrays.* Received: a list of float"),
        (lambda: iter([X.tolist()]), "must be arrays.* Received: a list of float"),
        ([(1, 2), (3, 4)], "must be arrays.* Received: a tuple of int"),
        (["cat.png", "dog.png"], "must be arrays.* Received: str$"),
        (lambda: iter([[X] * 5]), r"a batch must be .* Received: a list of 5$"),
    ],
    ids=["rows", "batch of rows", "pairs of numbers", "paths", "too many parts"],
)
def test_what_is_no_batch_is_refused_in_one_sentence(data, message, structure):
    with pytest.raises(ValueError, match=message) as error:
        list(data_adapter.fitting(model_of(structure), data, 2))
    assert len(str(error.value)) < 200


def test_a_pydataset_without_end_is_refused():
    class Endless(Pairs):
        num_batches = None

    with pytest.raises(ValueError, match="without an end"):
        list(data_adapter.batches(Endless(), 2))


@pytest.mark.parametrize("data", [X, Pairs()], ids=["array", "PyDataset"])
def test_the_first_batch_is_not_lost(data):
    first, rest = data_adapter.first_batch(None, data, 2)
    assert np.asarray(first).tolist() == IN_TWOS[0]
    assert read(rest) == IN_TWOS


def test_the_first_batch_of_a_generator_is_not_lost():
    first, rest = data_adapter.first_batch(None, (x for x in (X[:2], X[2:4], X[4:])), 2)
    assert first.tolist() == IN_TWOS[0]
    assert read(rest) == IN_TWOS


@pytest.fixture(scope="module")
def two_inputs():
    a, b = keras.Input((4,), name="a"), keras.Input((None, 3), name="b")
    return keras.Model([a, b], [a, b])


@pytest.mark.parametrize(
    "x",
    [
        [np.zeros((2, 4)), np.zeros((2, 7, 3))],
        (np.zeros((2, 4)), np.zeros((2, 7, 3))),
        {"a": np.zeros((2, 4)), "b": np.zeros((2, 7, 3))},
        {"b": np.zeros((2, 7, 3)), "a": np.zeros((2, 4)), "unused": np.zeros(2)},
    ],
    ids=["list", "tuple", "dict", "dict with more"],
)
def test_batches_that_fit_the_model(two_inputs, x):
    data_adapter.check_fit(two_inputs, x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 4)), "has 2 inputs. Received: 1 arrays"),
        (
            [np.zeros((2, 5)), np.zeros((2, 7, 3))],
            r"'a' must have shape \(None, 4\). Received: \(2, 5\)$",
        ),
        (
            [np.zeros((2, 4)), np.zeros((7, 3))],
            r"'b' must .* Received: \(7, 3\). Is a batch axis missing",
        ),
        (
            {"a": np.zeros((2, 4)), "b": np.zeros((2, 7, 2))},
            r"'b' must have shape \(None, None, 3\). Received: \(2, 7, 2\)",
        ),
    ],
    ids=["count", "size", "unbatched", "dict"],
)
def test_batches_that_do_not_fit_are_named(two_inputs, x, message):
    with pytest.raises(ValueError, match=message):
        data_adapter.check_fit(two_inputs, x)


@pytest.fixture(scope="module")
def pairs():
    return keras.Sequential([keras.Input((2,))])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize(
    "form",
    [
        lambda: X,
        lambda: (X, Y),
        lambda: tf.constant(X),
        lambda: (X[i : i + 1] for i in range(5)),
        lambda: iter([X[:4], X[4:]]),
        lambda: iter([X[:0], X[:1], X[1:1], X[1:]]),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(3),
        Pairs,
    ],
    ids=["array", "x y", "tensor", "ones", "four", "nothing", "tf.data", "PyDataset"],
)
def test_rounds_do_not_depend_on_batches(form, size, pairs):
    rounds = list(data_adapter.Rounds(pairs, form(), size))
    assert all(isinstance(x, np.ndarray) for x in rounds)
    expected = [X[start : start + size].tolist() for start in range(0, 5, size)]
    assert [x.tolist() for x in rounds] == expected


def test_a_round_ends_where_images_change_their_shape():
    model = keras.Sequential([keras.Input((None, 1))])
    batches = [np.zeros((n, size, 1)) for n, size in ((3, 5), (2, 5), (3, 4), (1, 5))]
    shapes = [x.shape for x in data_adapter.Rounds(model, iter(batches), 4)]
    assert shapes == [(4, 5, 1), (1, 5, 1), (3, 4, 1), (1, 5, 1)]


def test_rounds_of_several_inputs_keep_them_together(two_inputs):
    a = np.arange(20.0).reshape(5, 4)
    batches = ({"a": a[i : i + 3], "b": a[i : i + 3, None, :3]} for i in (0, 3))
    rounds = data_adapter.Rounds(two_inputs, batches, 2)
    batches = [dict(zip(("a", "b"), x, strict=True)) for x in rounds]
    assert [len(x["a"]) for x in batches] == [2, 2, 1]
    for x in batches:
        np.testing.assert_array_equal(x["b"][:, 0], x["a"][:, :3])


@pytest.mark.parametrize(
    ("data", "images"),
    [(X, 5), ((X, Y), 5), (Pairs(), 6), (iter([X]), None)],
    ids=["array", "x y", "batches of two", "iterator"],
)
def test_how_many_images_there_will_be(data, images, pairs):
    source = data_adapter.Rounds(pairs, data, 2)
    for _ in source:
        pass
    assert source.images == images


def test_a_distributed_dataset_is_refused():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    data = tf.data.Dataset.from_tensor_slices(X).batch(2)
    distributed = strategy.experimental_distribute_dataset(data)
    with pytest.raises(ValueError, match=r"Give the tf\.data\.Dataset"):
        list(data_adapter.batches(distributed, 2))


@pytest.mark.parametrize("size", [0, -1, 2.0, None])
@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_batch_size_that_is_not_positive_is_refused(size, as_dataset):
    model = keras.Sequential([keras.Input((2,)), dqa.layers.DQA(bits=4)])
    data = np.ones((4, 2), np.float32)
    dqa.calibrate(model, data, verbose=0)
    if as_dataset:
        data = tf.data.Dataset.from_tensor_slices(data).batch(2)
    for work in (dqa.calibrate, dqa.storage_bits):
        with pytest.raises(ValueError, match="batch_size must be a positive integer"):
            work(model, data, batch_size=size, verbose=0)


# ---- data as users have it, for a model whose inputs are known


def model_of(structure, size=None):
    """A model of `a` (2 values) and perhaps `b` (3 values)."""
    a = keras.Input(batch_shape=(size, 2), name="a")
    b = keras.Input(batch_shape=(size, 3), name="b")
    inputs = {"one": a, "list": [a, b], "dict": {"a": a, "b": b}}[structure]
    parts = [a] if structure == "one" else [a, b]
    joined = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
    return keras.Model(inputs, keras.layers.Dense(1)(joined))


A, B = X, np.arange(15, dtype=np.float32).reshape(5, 3)
TWO_INPUTS = {
    "list": [A, B],
    "tuple": (A, B),
    "dict": {"b": B, "a": A},
    "dict with more": {"c": Y, "b": B, "a": A},
    "inputs and labels": ([A, B], Y),
    "list of batches": [[A[:2], B[:2]], [A[2:], B[2:]]],
    "list of dicts": [{"a": A[:2], "b": B[:2]}, {"b": B[2:], "a": A[2:]}],
    "generator of lists": lambda: ([A[k : k + 1], B[k : k + 1]] for k in range(5)),
    "generator of tuples": lambda: ((A[k : k + 1], B[k : k + 1]) for k in range(5)),
    "generator with labels": lambda: (([A[k:], B[k:]], Y[k:]) for k in (0,)),
    "generator of dicts": lambda: ({"b": B[k:], "a": A[k:]} for k in (0,)),
    "tf.data": tf.data.Dataset.from_tensor_slices({"a": A, "b": B}).batch(2),
}


@pytest.mark.parametrize("structure", ["list", "dict"])
@pytest.mark.parametrize("data", TWO_INPUTS.values(), ids=TWO_INPUTS)
def test_two_inputs_come_as_users_have_them(data, structure):
    model = model_of(structure)
    parts = list(data_adapter.fitting(model, data, 2))
    for x in parts:
        model(x)  # the structure is the model's own
    a, b = (
        np.concatenate([np.asarray(keras.tree.flatten(x)[i]) for x in parts])
        for i in (0, 1)
    )
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(b, B)


@pytest.mark.parametrize(
    "data",
    [
        [X],
        {"a": X},
        [X[:2], X[2:4], X[4:]],
        [(X[:2], Y[:2]), (X[2:4], Y[2:4]), (X[4:], Y[4:])],
        lambda: iter([[X[:2]], [X[2:4]], [X[4:]]]),
        lambda: [X[:2], X[2:4], X[4:]],
    ],
)
def test_one_input_comes_as_users_have_it(data):
    parts = list(data_adapter.fitting(model_of("one"), data, 2))
    assert [np.asarray(x).tolist() for x in parts] == IN_TWOS


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("data", [X, [X[:3], X[3:]], lambda: iter([X])])
def test_data_is_cut_to_the_batches_that_a_model_declares(data, size):
    parts = list(data_adapter.fitting(model_of("one", size), data, 32))
    assert [len(x) for x in parts] == [size] * (5 // size)
    np.testing.assert_array_equal(np.concatenate(parts), X[: 5 // size * size])


def test_fewer_images_than_the_declared_batch_are_refused():
    with pytest.raises(ValueError, match=r"takes batches of 8 images\. Received: 5"):
        list(data_adapter.fitting(model_of("one", 8), X, 32))


class Loader:
    """Batches of a class of its own, as PyTorch's `DataLoader`."""

    def __iter__(self):
        return iter([[A[:2], B[:2]], [A[2:], B[2:]]])

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    "data",
    [
        [A, B],
        {"b": B, "a": A},
        TWO_INPUTS["generator of lists"],
        TWO_INPUTS["tf.data"],
        Loader(),
        iter(Loader()),
    ],
)
def test_samples_are_one_batch(data):
    a, b = data_adapter.samples(model_of("list"), data)
    np.testing.assert_array_equal(a, A)
    np.testing.assert_array_equal(b, B)
