"""The recipes' geometry and arithmetic against an independent transcription of the reference's documentation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from preprocessing import IMAGENET, MOBILENET, SPECS, PreprocessSpec


def reference_imagenet(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    image = np.asarray(pixels, dtype="float32")
    return image - np.array([123.68, 116.78, 103.94], dtype=np.float32)


def reference_mobilenet(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    image = np.asarray(pixels, dtype="float32").copy()
    image /= 255.0
    image -= 0.5
    image *= 2
    return image


REFERENCES = pytest.mark.parametrize(
    ("spec", "reference"),
    [(IMAGENET, reference_imagenet), (MOBILENET, reference_mobilenet)],
    ids=["imagenet", "mobilenet"],
)


@REFERENCES
def test_table_holds_the_reference_float_of_every_value(spec: PreprocessSpec, reference) -> None:  # type: ignore[no-untyped-def]
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
    table = spec.table()
    assert table.dtype == np.float32
    assert table.shape == (3, 256)
    np.testing.assert_array_equal(table.T.view(np.uint32), reference(pixels).view(np.uint32))


@REFERENCES
def test_to_float_is_the_reference_in_both_layouts(spec: PreprocessSpec, reference) -> None:  # type: ignore[no-untyped-def]
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    expected = reference(images)
    for layout, floats in [("NHWC", expected), ("NCHW", expected.transpose(0, 3, 1, 2))]:
        ours = spec.to_float(images, layout)  # type: ignore[arg-type]
        assert ours.flags.c_contiguous
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, floats)


@pytest.mark.parametrize(
    ("source", "resized", "corner"),
    [
        ((375, 500), (256, 341), (16, 58)),  # 256 * 500 / 375 = 341.33, (341 - 224) / 2 = 58.5
        ((500, 375), (341, 256), (58, 16)),
        ((300, 300), (256, 256), (16, 16)),
        ((1, 3), (256, 768), (16, 272)),
        ((1000, 999), (256, 256), (16, 16)),  # 256 * 1000 / 999 = 256.26
        ((225, 224), (257, 256), (16, 16)),
    ],
)
def test_geometry(source: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]) -> None:
    for spec in SPECS.values():
        assert spec.resized_size(*source) == resized
        window = spec.crop_window(*resized)
        assert (window.top, window.left) == corner
        assert (window.height, window.width) == (224, 224)


def test_digest_tells_recipes_apart_and_stays_the_same() -> None:
    digests = {
        spec.digest() for spec in [*SPECS.values(), replace(IMAGENET, crop_width=223), replace(IMAGENET, arithmetic=())]
    }
    assert len(digests) == 4
    assert replace(IMAGENET).digest() == IMAGENET.digest()
