"""The label map: what is read, and that nothing wrong in it passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocessing import LabelError, count_unnamed_images, read_val_map


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "more").mkdir()
    for name in ("a.JPEG", "b.JPEG", "more/c.JPEG"):
        (tmp_path / name).touch()
    return tmp_path


def test_lines_are_samples_in_order(folder: Path) -> None:
    (folder / "val_map.txt").write_text("b.JPEG 7\nmore/c.JPEG\t 0\r\na.JPEG 999")
    val_map = read_val_map(folder)
    assert val_map.dataset_path == folder
    assert val_map.files == ("b.JPEG", "more/c.JPEG", "a.JPEG")
    assert val_map.labels == (7, 0, 999)
    assert len(val_map) == 3


def test_count_takes_the_first_lines_and_looks_at_no_other(folder: Path) -> None:
    (folder / "val_map.txt").write_text("b.JPEG 7\na.JPEG 1\nthis is no label map line\n")
    assert read_val_map(folder, 2).files == ("b.JPEG", "a.JPEG")


@pytest.mark.parametrize(
    ("text", "count", "error"),
    [
        ("", None, "empty; expected one 'file label' per line"),
        ("a.JPEG 1\n", 2, "lists 1 images, but 2 are asked for; ask for fewer or complete the map"),
        ("a.JPEG 1\n", 0, "0 images asked for; ask for at least 1"),
        ("a.JPEG 1\nb.JPEG\n", None, ":2: expected 'file label' with a label from 0, found 'b.JPEG'; correct the line"),
        ("a.JPEG 1\n\nb.JPEG 2\n", None, ":2: expected 'file label' with a label from 0, found ''"),
        ("a.JPEG 1\n\n", None, ":2: expected 'file label' with a label from 0, found ''"),
        ("a.JPEG one\n", None, ":1: expected 'file label' with a label from 0, found 'a.JPEG one'"),
        ("a.JPEG -1\n", None, ":1: expected 'file label' with a label from 0"),
        ("a.JPEG 1.0\n", None, ":1: expected 'file label' with a label from 0"),
        ("a.JPEG ²\n", None, ":1: expected 'file label' with a label from 0"),
        (f"a.JPEG {'9' * 5000}\n", None, ":1: expected 'file label' with a label from 0"),
        ("a.JPEG 1 2\n", None, ":1: expected 'file label' with a label from 0"),
        (
            "a.JPEG 1\nnone.JPEG 1\n",
            None,
            ":2: no image {folder}/none.JPEG; restore it, or take the line out of the map",
        ),
        ("more 1\n", None, ":1: no image {folder}/more; restore it"),
        ("a.JPEG 1\nb.JPEG 1\na.JPEG 2\n", None, ":3: a.JPEG is already on line 1; take one of the two lines out"),
        ("../a.JPEG 1\n", None, ":1: ../a.JPEG lies outside the data set's folder; name files relative to {folder}"),
        ("/etc/passwd 1\n", None, ":1: /etc/passwd lies outside the data set's folder"),
    ],
)
def test_bad_maps_are_refused_in_one_line(folder: Path, text: str, count: int | None, error: str) -> None:
    (folder / "val_map.txt").write_text(text, encoding="utf-8")
    with pytest.raises(LabelError) as caught:
        read_val_map(folder, count)
    assert str(caught.value).startswith(f"{folder / 'val_map.txt'}:")
    assert error.format(folder=folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_maps(folder: Path) -> None:
    with pytest.raises(LabelError, match=r"val_map\.txt: no label map; the data set's folder must hold"):
        read_val_map(folder)
    with pytest.raises(LabelError, match="/none: no such folder; name the folder that holds the images and val_map"):
        read_val_map(folder / "none")
    with pytest.raises(LabelError, match=r"a\.JPEG: a file, not a folder; name the folder"):
        read_val_map(folder / "a.JPEG")
    (folder / "val_map.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(LabelError, match="not a text file"):
        read_val_map(folder)
    (folder / "val_map.txt").unlink()
    (folder / "val_map.txt").mkdir()
    with pytest.raises(LabelError, match=r"cannot be read \(Is a directory\)"):
        read_val_map(folder)


def test_a_class_out_of_range_is_refused_with_its_line(folder: Path) -> None:
    (folder / "val_map.txt").write_text("a.JPEG 999\nb.JPEG 1000\n")
    assert read_val_map(folder).labels == (999, 1000)
    assert read_val_map(folder, 1, class_count=1000).labels == (999,)
    with pytest.raises(LabelError, match=r"val_map\.txt:2: label 1000 is none of the classes 0\.\.999; correct"):
        read_val_map(folder, class_count=1000)


def test_images_that_no_line_names_are_counted(folder: Path) -> None:
    (folder / "val_map.txt").write_text("a.JPEG 1\nmore/c.JPEG 2\n")
    (folder / "d.jpg").touch()
    (folder / "notes.txt").touch()
    assert count_unnamed_images(read_val_map(folder)) == 2


def test_the_real_map(imagenet_dir: Path) -> None:
    val_map = read_val_map(imagenet_dir, 100)
    assert val_map.labels == tuple(range(0, 1000, 10))
    assert val_map.files[99] == "ILSVRC2012_val_00000100.JPEG"
