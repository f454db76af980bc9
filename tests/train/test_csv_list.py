"""Images named in a CSV file."""

import csv

import pytest

from jaxzoo import UsageError
from tests.train.test_data import paint
from train.data import load


@pytest.fixture
def pictures(tmp_path):
    """Ten images, 0.png to 9.png, in a folder."""
    for i in range(10):
        paint(tmp_path / "images" / f"{i}.png", color=(i, i, i))
    return tmp_path / "images"


def write(path, rows, header=("path", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return f"list:{path}"


def test_a_list_is_read_beside_its_images_and_split_like_a_folder(pictures):
    name = write(pictures / "list.csv", [(f"{i}.png", "cat" if i < 5 else "dog") for i in range(10)])
    data = load(name, seed=1)
    assert data.classes == ["cat", "dog"] and data.drawn
    assert sorted(data.held_out.labels) == [0, 1] and sorted(data.train.labels) == [0] * 4 + [1] * 4
    for source in (data.train, data.held_out):
        for i in range(len(source)):
            image, label = source[i]
            number = int(source.name(i).removeprefix(f"{pictures}/").removesuffix(".png"))
            assert image.getpixel((0, 0)) == (number,) * 3 and label == (number >= 5)
    assert load(name, seed=1).held_out.files == data.held_out.files
    assert load(name, seed=2).held_out.files != data.held_out.files


def test_a_split_in_the_list_is_taken_as_it_is(pictures):
    rows = [("val" if i in (2, 7) else "train", i % 2, pictures / f"{i}.png") for i in range(10)]
    data = load(write(pictures.parent / "list.csv", rows, ("split", "Label", " path ")))
    assert [data.held_out.name(i) for i in range(2)] == [f"{pictures}/2.png", f"{pictures}/7.png"]
    assert data.held_out.labels.tolist() == [0, 1] and not data.drawn


def test_labels_that_are_numbers_are_sorted_as_numbers(pictures):
    rows = [(f"{i}.png", label) for i, label in enumerate([10, 9, 10, 9, 2, 2])]
    data = load(write(pictures / "list.csv", rows))
    assert data.classes == ["2", "9", "10"]
    named = load(write(pictures / "named.csv", [*rows, ("6.png", "x"), ("7.png", "x")]))
    assert named.classes == ["10", "2", "9", "x"]


def test_a_list_from_a_spreadsheet_is_understood(pictures):
    """With a byte order mark, carriage returns, quotes, another column and empty lines at the end."""
    paint(pictures / "a, b.png")
    text = '\ufeffpath,label,remark\r\n"a, b.png",cat,"so, so"\r\n1.png,cat,\r\n2.png,dog,\r\n3.png,dog,\r\n,,\r\n'
    (pictures / "list.csv").write_bytes(text.encode())
    data = load(f"list:{pictures / 'list.csv'}")
    assert len(data.train) + len(data.held_out) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_other_encodings_and_delimiters_are_read_right(pictures, encoding, delimiter, capsys):
    end = {",": "\n", ";": "\r\n", "\t": "\r"}[delimiter]
    quoted = f'"au lait{delimiter} café"'
    rows = [("path", "label"), ("0.png", quoted), ("1.png", quoted), ("2.png", "thé"), ("3.png", "thé")]
    (pictures / "list.csv").write_bytes("".join(delimiter.join(row) + end for row in rows).encode(encoding))
    data = load(f"list:{pictures / 'list.csv'}")
    assert data.classes == [f"au lait{delimiter} café", "thé"]
    assert len(data.train) == len(data.held_out) == 2
    assert ("read as Windows-1252" in capsys.readouterr().out) == (encoding == "cp1252")


def test_paths_begin_at_home_or_were_written_on_windows(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    name = write(
        pictures.parent / "list.csv", [("~/images/0.png", "a"), ("images\\1.png", "b"), ("~/images/2.png", "a")]
    )
    assert load(name).train.name(0).startswith(f"{pictures.parent}/images/")
    assert load("list:~/list.csv").classes == ["a", "b"]


def test_lines_that_name_hidden_files_are_left_out_and_that_is_said(pictures, capsys):
    rows = [(f"{i}.png", i % 2) for i in range(8)] + [(".ipynb_checkpoints/0.png", 0), ("./._1.png", 1)]
    rows += [("../images/8.png", 0), (pictures / "9.png", 1), (pictures / "__MACOSX" / "9.png", 1)]
    data = load(write(pictures / "list.csv", rows))
    assert len(data.train) + len(data.held_out) == 10
    assert "left out: 3 lines" in capsys.readouterr().out
    with pytest.raises(UsageError, match="lists no images but hidden ones"):
        load(write(pictures / "hidden.csv", [(".old/0.png", 0)]))


def test_a_test_part_beside_a_held_out_one_is_left_out_and_that_is_said(pictures, capsys):
    rows = [(f"{i}.png", i % 2, ("Training", "training", "VALID", "test")[i % 4]) for i in range(8)]
    rows[3] = ("3.png", "a class of its own", "test")
    data = load(write(pictures / "list.csv", rows, ("path", "label", "split")))
    assert (len(data.train), len(data.held_out)) == (4, 2)
    assert "left out: 2 lines" in capsys.readouterr().out


def test_what_is_no_text_is_refused_with_advice(pictures):
    for content in (b"PK\3\4\0\0", b"path,label\n\x81.png,\xff\n"):
        (pictures / "list.csv").write_bytes(content)
        with pytest.raises(UsageError, match=r"save .*as CSV in UTF-8"):
            load(f"list:{pictures / 'list.csv'}")


def refused(pictures, text):
    (pictures / "list.csv").write_text(text)
    with pytest.raises(UsageError) as error:
        load(f"list:{pictures / 'list.csv'}")
    assert f"{pictures / 'list.csv'}" in str(error.value)
    return str(error.value)


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no list"):
        load(f"list:{tmp_path / 'list.csv'}")
    with pytest.raises(UsageError, match="cannot be read"):
        load(f"list:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "needs a header with the columns path,label[,split]; it is empty"),
        ("0.png,cat\n1.png,dog\n", "needs a header with the columns path,label[,split]; it begins with: 0.png,cat"),
        ("path:label\n0.png:cat\n", "it begins with: path:label"),
        ("path;label\na; b.png;cat\n", "line 2, has 3 columns, but the header 2; quote semicolons"),
        ("path,label\n\n", "lists no images below its header"),
        ("path,label\n0.png,cat\n1.png\n", "line 3, has no label"),
        ("path,label,split\n0.png,cat,\n", "line 2, has no split"),
        ("path,label,split\n0.png,cat,both\n", "line 2, has the split 'both'; it is train, val or test"),
        ("path,label\na, b.png,cat\n", "line 2, has 3 columns, but the header 2; quote commas"),
        ("path,label\n0.png,cat\n./0.png,dog\n", "line 3, lists ./0.png again, after line 2; remove one"),
        ("path,label\n0.png,cat\n1.png,cat\n", "at least two classes; all are of 'cat'"),
        ("path,label\n0.png,cat\n1.png,dog\n", "nothing to hold out: every class has a single image"),
        ("path,label,split\n0.png,cat,train\n1.png,dog,train\n", "nothing to hold out: no line has the split val"),
        ("path,label,split\n0.png,cat,train\n1.png,dog,val\n", "classes that are only held out: dog"),
    ],
)
def test_an_impossible_list_is_refused_in_one_sentence(pictures, text, sentence):
    assert sentence in refused(pictures, text)


def test_files_that_are_not_there_are_named_with_their_lines(pictures):
    lines = "".join(f"{name}.png,{label}\n" for label, name in enumerate([0, 77, 1, 78, 79, 80, 81]))
    said = refused(pictures, "path,label\n" + lines)
    assert "not there" in said and "77.png (line 3), 78.png (line 5), 79.png (line 6) and 2 more" in said
    assert str(pictures) in said
