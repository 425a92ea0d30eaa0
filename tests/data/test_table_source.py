"""Label tables: columns are found by name, and errors name the line."""

import json

import pytest
from pictures import SEED, save, spec

from tlopt.data import load
from tlopt.data.sources.table import list_table
from tlopt.errors import DataError, MissingExtra


@pytest.fixture
def table(tmp_path):
    """Makes a CSV file beside images 0.png to 11.png: `table("file,label", *rows)`."""
    for index in range(12):
        save(tmp_path / f"{index}.png", index)

    def make(*lines, name="labels.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


def rows(*, suffix=".png", n=12):
    return [f"{i}{suffix},{'cat' if i % 2 else 'dog'}" for i in range(n)]


def listed(path, **changes):
    return list_table(spec(path, **changes))


def labels(found):
    return {entry.path.name: entry.class_name for entry in found.entries}


EXPECTED = {f"{i}.png": "cat" if i % 2 else "dog" for i in range(12)}


def test_a_csv_file_gives_files_and_classes(table):
    found = listed(table("file_name,label", *rows()))
    assert labels(found) == EXPECTED
    assert found.class_names == ("cat", "dog")
    assert found.notices == ('of the table, file from "file_name", class from "label"',)


@pytest.mark.parametrize(
    ("name", "head", "separator"),
    [
        ("labels.tsv", "file\tclass", "\t"),
        ("labels.csv", "Image;Label", ";"),
        ("labels.csv", "image,target", ","),
    ],
)
def test_separators_and_well_known_names_of_columns(table, name, head, separator):
    lines = [row.replace(",", separator) for row in rows()]
    assert labels(listed(table(head, *lines, name=name))) == EXPECTED


def test_json_lines(table):
    lines = [json.dumps({"file_name": f"{i}.png", "label": i % 2}) for i in range(12)]
    found = listed(table(*lines, name="metadata.jsonl"))
    assert labels(found) == {f"{i}.png": str(i % 2) for i in range(12)}


def test_parquet(table, tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"file": [f"{i}.png" for i in range(12)], "label": [float(i % 2) for i in range(12)]}
    table()
    parquet.write_table(pa.table(columns), tmp_path / "labels.parquet")
    assert labels(listed(tmp_path / "labels.parquet")) == {f"{i}.png": str(i % 2) for i in range(12)}


def test_parquet_without_pyarrow_names_the_extra(table, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"tlopt\[parquet\]"):
        listed(table("x", name="labels.parquet"))


def test_ids_without_a_suffix_stand_for_the_image_with_that_stem(table, tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(12):
        (tmp_path / f"{index}.png").rename(tmp_path / "images" / f"{index}.png")
    found = listed(
        table("id,breed", *rows(suffix="")), label_column="breed", images_root=str(tmp_path / "images")
    )
    assert labels(found) == EXPECTED


def test_an_id_with_two_images_is_refused(table, tmp_path):
    (tmp_path / "3.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 row names several files: line 5 \(3: 3\.jpg, 3\.png\)"):
        listed(table("id,label", *rows(suffix="")))


def test_given_splits_are_kept(table):
    lines = [f"{row},{'test' if i < 4 else 'Valid' if i < 8 else 'training'}" for i, row in enumerate(rows())]
    data = load.load_data(spec(table("file,label,split", *lines)), seed=SEED)
    assert (data.n_test, len(data.splits)) == (4, 1)
    assert {data.images[i].origin.path.name for i in data.splits[0].val} == {f"{i}.png" for i in range(4, 8)}


def test_without_a_split_column_a_table_is_divided_as_a_folder_is(table):
    data = load.load_data(spec(table("file,label", *rows())), seed=SEED)
    assert (data.n_test, len(data.splits)) == (2, 3)
    assert data.class_names == ("cat", "dog")


def test_names_in_paths_say_nothing(table, tmp_path):
    for content, split in enumerate(("train", "test"), 50):
        save(tmp_path / split / "x.png", content)
    found = listed(table("file,label", *rows(), "train/x.png,cat", "test/x.png,dog"))
    assert {entry.split for entry in found.entries} == {"trainval"}


FAULTS = [
    (
        ("file,label", "0.png,cat", "gone.png,dog"),
        r"1 row names a file that is not in .*: line 3 \(gone\.png\)",
    ),
    (("file,label", "0.png,cat", "1.png,"), "1 row has no class: line 3"),
    (("file,label", ",cat", "1.png,dog"), "1 row has no file: line 2"),
    (
        ("file,label,split", "0.png,cat,train", "1.png,dog,holdout"),
        r"unknown split: line 3 \(holdout\); allowed",
    ),
    (("file,label,split", "0.png,cat,val", "1.png,dog,test"), "no row has the split train"),
    (("file,label,split", "0.png,a,train", "1.png,b,train", "2.png,c,val"), r"train lacks: line 4 \(c\)"),
    (
        ("file,label,split", "0.png,a,train", "1.png,b,train", "0.png,a,val"),
        r"line 4 \(0\.png, as in line 2\)",
    ),
    (("file,label", "0.png,cat", "1.png,cat"), 'only one class, "cat"'),
    (("file,label", "0.png,cat,3"), "line 2: 3 values for 2 columns"),
    (("file,label,label", "0.png,cat,3"), 'two columns are called "label"'),
    (("file,label",), "has no rows"),
    (("photo,label", "0.png,cat"), "which column names the image file.*file_column.*photo, label"),
    (("file,species", "0.png,cat"), "which column names the class.*label_column.*file, species"),
    (("file,filename,label", "0.png,0.png,cat"), "file and filename could each be the file: .*file_column"),
    (('file,label\n"0.png,cat',), "line 2: unexpected end of data"),
]


@pytest.mark.parametrize(("lines", "words"), FAULTS, ids=[words[:30] for _, words in FAULTS])
def test_a_fault_is_named_by_its_line(table, lines, words):
    with pytest.raises(DataError, match=words):
        listed(table(*lines))


def test_of_many_faults_five_are_named(table):
    gone = [f"gone{i}.png,cat" for i in range(8)]
    with pytest.raises(DataError, match=r"8 rows name files .* line 18 \(gone4\.png\), and 3 more"):
        listed(table("file,label", *rows(), *gone))


def test_a_column_that_is_not_there_is_named_with_the_nearest(table):
    with pytest.raises(DataError, match=r'no column "lable" \(data\.label_column\).*did you mean "label"'):
        listed(table("file,label", *rows()), label_column="lable")


def test_several_labels_of_an_image_are_refused(table):
    lines = [json.dumps({"file_name": f"{i}.png", "label": ["a", "b"]}) for i in range(4)]
    with pytest.raises(
        DataError, match='line 1: "label" holds several values: tlopt learns one class per image'
    ):
        listed(table(*lines, name="metadata.jsonl"))


def test_a_table_that_is_not_utf_8_is_refused(table):
    path = table("file,label", *rows())
    path.write_bytes("file,label\n0.png,Köter\n".encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        listed(path)


def test_a_row_that_is_said_again_counts_once(table):
    found = listed(table("file,label", *rows(), "3.png,cat"))
    assert (len(found.entries), found.notices[1:]) == (
        12,
        ("1 row names a file again and counts once: line 14 (3.png)",),
    )


def test_a_file_with_two_classes_is_a_conflict_that_may_be_skipped(table):
    path = table("file,label", *rows(), "3.png,dog", "5.png,dog")
    with pytest.raises(DataError, match=r"(?s)2 images .* lie in two classes:\n.*3\.png.*5\.png.*conflicts"):
        load.load_data(spec(path), seed=SEED)
    data = load.load_data(spec(path, conflicts="skip"), seed=SEED)
    assert len(data.images) + data.n_test == 10


def test_keys_of_tables_are_refused_for_folders(tmp_path):
    with pytest.raises(ValueError, match=r"label_column needs a table as the source \(\.csv"):
        spec(tmp_path, label_column="breed")


def test_a_folder_with_a_tables_suffix_stays_a_folder(folder, tmp_path):
    root = folder(6, 6).rename(tmp_path / "photos.csv")
    assert load.load_data(spec(root), seed=SEED).class_names == ("a", "b")
