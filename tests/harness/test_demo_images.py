"""The demo's images: a function of seed, split and index; JPEGs no two of which are alike; a valid layout."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.demo import images
from harness.demo.images import CLASSES, Split
from preprocessing import IMAGENET, VAL_MAP_NAME, preprocess, read_val_map

SEED = 3
COUNT = 2 * len(CLASSES) + 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    images.write_dataset(folder, SEED, COUNT)
    return folder


def test_layout_is_imagenets_and_holds_each_image_once(dataset: Path) -> None:
    val_map = read_val_map(dataset)
    assert len(val_map.labels) == COUNT
    names = [line.split()[0] for line in (dataset / VAL_MAP_NAME).read_text().splitlines()]
    assert names == [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, COUNT + 1)]
    assert sorted(path.name for path in dataset.iterdir()) == sorted([*names, VAL_MAP_NAME])


def test_classes_are_balanced_and_spread_over_imagenets(dataset: Path) -> None:
    labels = [int(line.split()[1]) for line in (dataset / VAL_MAP_NAME).read_text().splitlines()]
    frequencies = Counter(labels)
    assert len(frequencies) == len(CLASSES) == 24
    assert set(frequencies.values()) == {2, 3}
    assert (min(labels), max(labels)) == (0, 999)
    assert labels[: len(CLASSES)] != labels[len(CLASSES) : 2 * len(CLASSES)], "the order must not repeat"


def test_images_are_rgb_jpegs_of_many_sizes_that_the_recipe_takes(dataset: Path) -> None:
    sizes = set()
    for path in sorted(dataset.glob("*.JPEG")):
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes.add(image.size)
    sides = np.array(sorted(sizes))
    assert len(sizes) > COUNT // 2
    assert sides.min() >= 300 and sides.max() < 645
    assert (sides[:, 0] > sides[:, 1]).any() and (sides[:, 0] < sides[:, 1]).any()
    assert preprocess(dataset / "ILSVRC2012_val_00000001.JPEG", IMAGENET).shape == (224, 224, 3)


def test_a_larger_dataset_begins_with_the_smaller_one(dataset: Path, tmp_path: Path) -> None:
    count = 30
    images.write_dataset(tmp_path, SEED, count)
    for path in sorted(tmp_path.glob("*.JPEG")):
        assert path.read_bytes() == (dataset / path.name).read_bytes(), path.name
    assert (dataset / VAL_MAP_NAME).read_text().splitlines()[:count] == (
        tmp_path / VAL_MAP_NAME
    ).read_text().splitlines()


def test_no_two_images_of_any_split_or_seed_are_alike() -> None:
    digests = [
        hashlib.sha256(np.asarray(images.render(seed, split, index))).digest()
        for seed in (0, 1)
        for split in Split
        for index in range(16)
    ]
    assert len(set(digests)) == len(digests) == 96


def test_an_image_does_not_depend_on_those_before_it() -> None:
    alone = images.jpeg(SEED, Split.HELD_OUT, 7)
    in_turn = list(images.in_order(lambda index: images.jpeg(SEED, Split.HELD_OUT, index), 9))
    assert in_turn[7] == alone
    assert Image.open(io.BytesIO(alone)).size == images.render(SEED, Split.HELD_OUT, 7).size


def test_half_of_the_colours_mirror_each_other_in_red_and_blue() -> None:
    pairs = {(image_class.light, image_class.dark) for image_class in CLASSES}
    mirrored = {(light[::-1], dark[::-1]) for light, dark in pairs}
    assert len(pairs & mirrored) == 2


@pytest.mark.parametrize("count", [0, 1, 3, 100])
def test_in_order_yields_every_result_once(count: int) -> None:
    assert list(images.in_order(lambda index: index * index, count)) == [index * index for index in range(count)]


def test_progress_counts_images_written(tmp_path: Path) -> None:
    seen: list[int] = []
    images.write_dataset(tmp_path, SEED, 3, progress=seen.append)
    assert seen == [1, 2, 3]
