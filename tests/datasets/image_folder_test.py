"""Data from folders of images: real files, each of the colour of its class."""

import keras
import numpy as np
import pytest

from dqa_keras import datasets

COLOURS = {"ant": 0, "bee": 60, "cat": 120, "dog": 180, "train": 240}


def write(folder, parts, count=3):
    """Images below `folder`: for each part, `""` for none, its class names."""
    for part, names in parts.items():
        for name in names:
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                picture = np.full((6, 8, 3), COLOURS[name] + index, np.uint8)
                path = folder / part / name / f"{index:02}.png"
                keras.utils.save_img(path, picture, scale=False)
    return folder


def pairs(splits, part):
    """(Name by the colour, name by the label) of a part's images, sorted."""
    pairs_read = []
    for image, label in getattr(splits, part):
        assert image.shape == (6, 8, 3)
        colour = int(np.max(image))
        (name,) = (n for n, c in COLOURS.items() if c <= colour < c + 60)
        pairs_read.append((name, splits.labels[int(label)], colour))
    return sorted(pairs_read)


def check(splits, train, test):
    """Every label is its image's, and so many images of each class are there."""
    for part, count in (("train", train), ("test", test)):
        read = pairs(splits, part)
        assert all(name == label for name, label, _ in read)
        counts = [sum(n == name for n, _, _ in read) for name in splits.labels]
        assert counts == count


def test_a_folder_of_images_by_class(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for name, value in (("dark", 10), ("light", 240)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture = np.full((6, 8, 3), value, np.uint8)
                keras.utils.save_img(folder / f"{index}.png", picture, scale=False)
    splits = datasets.load(tmp_path, image_size=(6, 8))
    assert splits.labels == ["dark", "light"]
    assert int(splits.train.cardinality()) == 6
    for image, label in splits.test:
        assert image.shape == (6, 8, 3)
        assert float(np.max(image)) == (10, 240)[int(label)]


@pytest.mark.parametrize("training", ["train", "Train", "training"])
@pytest.mark.parametrize("measuring", ["test", "val", "validation", "Valid"])
def test_parts_by_their_usual_names(tmp_path, training, measuring):
    classes = ["ant", "bee"]
    splits = datasets.load(
        write(tmp_path, {training: classes, measuring: classes}), image_size=(6, 8)
    )
    assert splits.labels == classes
    check(splits, [3, 3], [3, 3])
    assert (measuring in splits.note) == (measuring != "test")


def test_a_test_part_goes_before_a_validation_part(tmp_path):
    write(tmp_path, {"train": ["ant", "bee"], "test": ["ant", "bee"]}, 2)
    write(tmp_path, {"val": ["ant", "bee"]}, 4)
    splits = datasets.load(tmp_path, image_size=(6, 8))
    check(splits, [2, 2], [2, 2])
    assert f"{tmp_path / 'val'} is not used" in splits.note


def test_a_test_part_without_classes_is_not_used_and_that_is_said(tmp_path):
    write(tmp_path, {"train": ["ant", "bee"], "val": ["ant", "bee"]})
    (tmp_path / "test").mkdir()
    keras.utils.save_img(tmp_path / "test" / "1.png", np.zeros((6, 8, 3)))
    splits = datasets.load(tmp_path, image_size=(6, 8))
    check(splits, [3, 3], [3, 3])
    assert "test holds no folder for each class: not used" in splits.note


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(("count", "measured"), [(2, 1), (4, 1), (5, 1), (11, 2)])
def test_a_missing_part_is_split_off_and_that_is_said(tmp_path, part, count, measured):
    write(tmp_path, {part: ["ant", "bee"]}, count)
    loaded = [datasets.load(tmp_path, image_size=(6, 8)) for _ in range(2)]
    check(loaded[0], [count - measured] * 2, [measured] * 2)
    assert not {p for p in pairs(loaded[0], "train")} & set(pairs(loaded[0], "test"))
    assert f"only the part {part}/" in loaded[0].note
    assert f"measured ({2 * measured})" in loaded[0].note
    first, again = (
        [image.numpy().tobytes() for image, _ in splits.train] for splits in loaded
    )
    assert first == again


def test_one_image_of_each_class_cannot_be_split(tmp_path):
    write(tmp_path, {"train": ["ant", "bee"]}, 1)
    with pytest.raises(ValueError, match=r"at least 2 images.*train/ and test/"):
        datasets.load(tmp_path, image_size=(6, 8))


def test_a_class_that_only_the_test_part_lacks_keeps_the_numbers(tmp_path):
    write(tmp_path, {"train": ["ant", "bee", "cat"], "test": ["bee", "cat"]})
    splits = datasets.load(tmp_path, image_size=(6, 8))
    assert splits.labels == ["ant", "bee", "cat"]
    check(splits, [3, 3, 3], [0, 3, 3])


@pytest.mark.parametrize("test", [["ant", "bee", "cat"], ["dog"], ["ant", "dog"]])
def test_a_class_without_training_images_is_named(tmp_path, test):
    write(tmp_path, {"train": ["ant", "bee"], "test": test})
    with pytest.raises(ValueError, match=rf"same classes.*Only in .*: {test[-1]}\."):
        datasets.load(tmp_path, image_size=(6, 8))


def test_classes_without_parts(tmp_path):
    splits = datasets.load(write(tmp_path, {"": ["ant", "bee"]}), image_size=(6, 8))
    check(splits, [3, 3], [3, 3])
    assert "has no parts" in splits.note


def test_a_class_may_be_called_train(tmp_path):
    splits = datasets.load(write(tmp_path, {"": ["ant", "train"]}), image_size=(6, 8))
    check(splits, [3, 3], [3, 3])


def test_parts_without_classes_are_refused(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        keras.utils.save_img(tmp_path / part / "1.png", np.zeros((6, 8, 3)))
    with pytest.raises(ValueError, match=r"no folder in train, val"):
        datasets.load(tmp_path, image_size=(6, 8))


def test_a_class_beside_a_part_is_refused(tmp_path):
    write(tmp_path, {"train": ["ant", "bee"], "": ["cat"]})
    with pytest.raises(ValueError, match=r"parts or classes.*train beside cat"):
        datasets.load(tmp_path, image_size=(6, 8))


def test_a_folder_needs_a_size_and_classes(tmp_path):
    with pytest.raises(ValueError, match="say image_size"):
        datasets.load(tmp_path)
    with pytest.raises(ValueError, match="one folder of images for each class"):
        datasets.load(tmp_path, image_size=(8, 8))


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"?" * 9]
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    write(tmp_path, {"train": ["ant"], "test": ["ant"]})
    path = tmp_path / "test" / "ant" / "01.png"
    path.write_bytes(content)
    splits = datasets.load(tmp_path, image_size=(6, 8))
    with pytest.raises(Exception, match=rf"ValueError: {path} is no image"):
        list(splits.test)


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path, {"train": ["ant", "bee"], "test": ["ant", "bee"]})
    (tmp_path / "train" / "cat").mkdir()
    keras.utils.save_img(tmp_path / "test" / "1.png", np.zeros((6, 8, 3)))
    splits = datasets.load(tmp_path, image_size=(6, 8))
    assert splits.labels == ["ant", "bee", "cat"]
    assert "train has no images of cat" in splits.note
    assert "test: 1 images outside the classes are not used" in splits.note


def test_linked_folders_count_and_hidden_ones_do_not(tmp_path):
    write(tmp_path / "data", {"": ["ant", "bee"]})
    write(tmp_path / "elsewhere", {"": ["ant"]}, 2)
    ants = tmp_path / "data" / "ant"
    (ants / "more").symlink_to(tmp_path / "elsewhere" / "ant")
    (ants / "back").symlink_to(ants)
    write(ants, {"": ["dog"]})
    (ants / "dog").rename(ants / ".ipynb_checkpoints")
    splits = datasets.load(tmp_path / "data", image_size=(6, 8))
    check(splits, [5, 3], [5, 3])


@pytest.mark.parametrize("parts", [("train", "test"), ("train",), ("",)])
def test_files_that_are_no_images_are_counted_by_kind(tmp_path, parts):
    write(tmp_path, {part: ["ant", "bee"] for part in parts})
    folder = tmp_path / parts[0] / "bee"
    (folder / "nested").mkdir()
    for name in ("a.webp", "b.WEBP", "nested/c.tif", "LICENSE", ".hidden", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    splits = datasets.load(tmp_path, image_size=(6, 8))
    assert (
        "4 files are not used, because they are none of .bmp, .gif, .jpeg, .jpg, .png: "
        "1 of .tif, 2 of .webp, 1 of no suffix"
    ) in splits.note
    assert splits.note.count("not used") == 1


def test_a_folder_of_images_alone_has_no_such_note(tmp_path):
    write(tmp_path, {"train": ["ant"], "test": ["ant"]})
    assert "not used" not in (datasets.load(tmp_path, image_size=(6, 8)).note or "")
