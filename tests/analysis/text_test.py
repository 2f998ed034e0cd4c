from dqa_keras.analysis import text


def test_columns_are_as_wide_as_their_widest_cell():
    lines = text.table([("name", "bits"), ("a long name", "4"), ("x", "12")])
    assert lines.splitlines() == [
        "name         bits",
        "-----------------",
        "a long name  4",
        "x            12",
    ]
