"""Image file -> pixels against OpenCV, and what happens to files that are not intact."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pictures import jpeg, jpeg_header, noise, opencv_load_rgb, opencv_resize_and_crop, scenery
from PIL import Image, ImageFile

import preprocessing
from preprocessing import IMAGENET, RESIZER, SPECS, ImageError, PreprocessSpec, load_rgb, preprocess, read_val_map

EVERY_SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def exif(orientation: int, order: str = "<", entry_type: int = 3) -> bytes:
    """An APP1 segment whose first directory holds the orientation, as an entry of this TIFF type."""
    value = struct.pack(order + {1: "B3x", 3: "H2x", 4: "I"}[entry_type], orientation)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    body = b"Exif\0\0" + head + struct.pack(order + "HHHI", 1, 0x112, entry_type, 1) + value + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, segment: bytes) -> bytes:
    """The JPEG file with one more segment after its first two markers (SOI, APP0)."""
    after_app0 = 4 + int.from_bytes(data[4:6], "big")
    return data[:after_app0] + segment + data[after_app0:]


def without_adobe(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def as_ycck(data: bytes) -> bytes:
    """Relabel a CMYK file as YCCK, through the transform byte of its Adobe segment."""
    flag = data.index(b"Adobe") + 11
    return data[:flag] + b"\2" + data[flag + 1 :]


PHOTO = scenery(61, 83)
CMYK = scenery(61, 83, 4)
FILES = {
    "4:4:4": jpeg(PHOTO, subsampling=0, quality=95),
    "4:2:2": jpeg(PHOTO, subsampling=1, quality=60),
    "4:2:0": jpeg(PHOTO, subsampling=2, quality=30),
    "progressive": jpeg(PHOTO, progressive=True),
    "stored as RGB": jpeg(PHOTO, keep_rgb=True),
    "restart markers": jpeg(PHOTO, restart_marker_rows=1),
    "one pixel": jpeg(PHOTO[:1, :1]),
    "greyscale": jpeg(PHOTO[..., :1], "L"),
    "greyscale, progressive": jpeg(PHOTO[..., :1], "L", progressive=True),
    "CMYK by Adobe": jpeg(CMYK, "CMYK", quality=90),
    "CMYK without Adobe": without_adobe(jpeg(CMYK, "CMYK", quality=90)),
    "YCCK": as_ycck(jpeg(CMYK, "CMYK", quality=90)),
    "YCCK, upside down": with_segment(as_ycck(jpeg(CMYK, "CMYK")), exif(3)),
    "orientation in XMP only": jpeg(PHOTO, xmp=b'<rdf:Description tiff:Orientation="6"/>'),
    "bytes after the end": jpeg(PHOTO) + b"leftover" * 50,
    "two EXIF segments": with_segment(with_segment(jpeg(PHOTO), exif(3)), exif(6)),
    "EXIF cut short": with_segment(jpeg(PHOTO), b"\xff\xe1\0\x0cExif\0\0II*\0"),
    **{f"orientation {o} little-endian": with_segment(jpeg(PHOTO), exif(o)) for o in range(10)},
    **{f"orientation {o} big-endian": with_segment(jpeg(PHOTO), exif(o, ">")) for o in range(10)},
    **{
        f"orientation of type {t}{order}": with_segment(jpeg(PHOTO), exif(6, order, t))
        for t in (1, 4)
        for order in "<>"
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_load_rgb_equals_imread(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(FILES[kind])
    np.testing.assert_array_equal(load_rgb(path), opencv_load_rgb(path))


def test_the_orientations_are_eight_different_pictures(tmp_path: Path) -> None:
    """Otherwise the comparison with OpenCV could not tell them apart."""
    seen = set()
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.jpg"
        path.write_bytes(FILES[f"orientation {orientation} big-endian"])
        pixels = load_rgb(path)
        seen.add((pixels.shape, pixels.tobytes()))
    assert len(seen) == 8


@EVERY_SPEC
@pytest.mark.parametrize("kind", ["4:2:0", "greyscale", "YCCK, upside down", "orientation 6 big-endian", "one pixel"])
def test_preprocess_equals_opencv(kind: str, spec: PreprocessSpec, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(FILES[kind])
    np.testing.assert_array_equal(preprocess(path, spec), opencv_resize_and_crop(opencv_load_rgb(path), spec))


@EVERY_SPEC
def test_preprocess_equals_opencv_on_large_pictures(spec: PreprocessSpec, tmp_path: Path) -> None:
    for height, width, orientation in [(375, 500, 1), (375, 500, 8), (1200, 600, 5), (512, 512, 2), (300, 2000, 7)]:
        path = tmp_path / "image.jpg"
        path.write_bytes(with_segment(jpeg(scenery(height, width)), exif(orientation)))
        expected = opencv_resize_and_crop(opencv_load_rgb(path), spec)
        np.testing.assert_array_equal(preprocess(path, spec), expected, err_msg=f"{height} x {width}, {orientation}")


@EVERY_SPEC
def test_real_photographs_equal_opencv(spec: PreprocessSpec, imagenet_dir: Path) -> None:
    val_map = read_val_map(imagenet_dir)
    paths = [val_map.dataset_path / file for file in val_map.files[:1000]]
    differing = {
        path.name: int((preprocess(path, spec) != opencv_resize_and_crop(opencv_load_rgb(path), spec)).sum())
        for path in paths
    }
    assert {name: count for name, count in differing.items() if count} == {}


def test_where_numba_is_not_installed_numpy_gives_the_same(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(FILES["4:2:0"])
    program = (
        "import sys; sys.modules['numba'] = None; import preprocessing as p; assert p.RESIZER == 'numpy';"
        "sys.stdout.buffer.write(p.preprocess(sys.argv[1], p.IMAGENET).tobytes())"
    )
    root = Path(preprocessing.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", program, str(path)], cwd=root, check=True, stdout=subprocess.PIPE)
    assert RESIZER == "numba"
    assert child.stdout == preprocess(path, IMAGENET).tobytes()


BROKEN = {
    "empty": (b"", r"not a JPEG \(0 bytes, beginning with nothing\); replace it by the original JPEG file"),
    "text": (b"<html>404", r"not a JPEG \(9 bytes, beginning with 3c 68 74 6d\); replace it"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(40), r"not a JPEG \(48 bytes, beginning with 89 50 4e 47\); replace it"),
    "cut in the header": (FILES["4:2:0"][:100], r"damaged JPEG header \(.+\); replace the file by an intact copy"),
    "cut in the tables": (FILES["4:2:0"][:330], r"damaged JPEG .+; replace the file by an intact copy"),
    "cut in the picture": (FILES["4:2:0"][:-200], r"truncated or damaged JPEG of \d+ bytes \(.+\); replace the file"),
    "cut in the picture, progressive": (FILES["progressive"][:-200], r"truncated or damaged JPEG of \d+ bytes"),
    "cut by one byte": (FILES["4:2:0"][:-1], r"truncated or damaged JPEG of \d+ bytes \(.+\); replace the file"),
    "bomb": (
        jpeg_header(65500, 65500),
        r"declares 65500 x 65500 pixels, more than the 89478485 allowed .+ smaller image",
    ),
    "just too large": (jpeg_header(9460, 9460), r"declares 9460 x 9460 pixels, more than the 89478485 allowed"),
    "two components": (
        FILES["4:2:0"].replace(b"\x03\x01\x22\0", b"\x02\x01\x22\0"),
        r"damaged JPEG header \(.+\); replace",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("load", [load_rgb, lambda path: preprocess(path, IMAGENET)], ids=["load_rgb", "preprocess"])
def test_broken_files_are_refused_in_one_line(kind: str, load, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data, text = BROKEN[kind]
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        load(path)
    assert re.match(re.escape(f"{path}: ") + text, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no\.jpg: no such image; restore it"):
        load_rgb(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\); check"):
        load_rgb(tmp_path)


def test_padding_of_truncated_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some programs set this switch of Pillow's for the whole process."""
    path = tmp_path / "image.jpg"
    path.write_bytes(FILES["4:2:0"][:-200])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="LOAD_TRUNCATED_IMAGES is set"):
        load_rgb(path)


def test_damage_anywhere_in_the_file_never_escapes_as_another_error(tmp_path: Path) -> None:
    """Every third byte of header and picture is overwritten; each file either loads or raises ImageError."""
    random = np.random.default_rng(7)
    whole = with_segment(jpeg(noise(16, 16), dpi=(72, 72), comment=b"hi"), exif(6))
    path = tmp_path / "image.jpg"
    refused = 0
    for position in range(2, len(whole), 3):
        for value in {0, 255, int(random.integers(256))}:
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            try:
                load_rgb(path)
            except ImageError:
                refused += 1
    assert refused > 50


def test_pixels_are_those_of_the_encoder(tmp_path: Path) -> None:
    """Against Pillow's own decoder, where OpenCV and this package could be wrong together."""
    path = tmp_path / "image.jpg"
    path.write_bytes(FILES["4:4:4"])
    np.testing.assert_array_equal(load_rgb(path), np.asarray(Image.open(path)))
