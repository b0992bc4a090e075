"""Every byte of both resizers against OpenCV, over sizes that reach every code path and every edge."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pictures import AWKWARD_SIZES, Pixels, noise, opencv_resize_and_crop

from preprocessing import IMAGENET, MOBILENET, resize_numpy
from preprocessing import RESIZER as USED
from preprocessing.resize_plan import AreaMean, Bilinear, BlockMean, ResizePlan, plan_resize
from preprocessing.spec import PreprocessSpec, Window

RESIZERS = {"numpy": resize_numpy.resize}
if USED == "numba":  # where it is installed
    from preprocessing import resize

    RESIZERS["numba"] = resize.resize
SPECS = pytest.mark.parametrize("spec", [IMAGENET, MOBILENET], ids=lambda spec: spec.interpolation)
RESIZER = pytest.mark.parametrize("resizer", RESIZERS)


def carry_out(resizer: str, image: Pixels, plan: ResizePlan) -> Pixels:
    part = plan.source
    source = image[part.top : part.top + part.height, part.left : part.left + part.width]
    assert source.shape[:2] == (part.height, part.width)
    return RESIZERS[resizer](np.ascontiguousarray(source), plan)


def plan_for(image: Pixels, spec: PreprocessSpec) -> ResizePlan:
    size = spec.resized_size(image.shape[0], image.shape[1])
    return plan_resize((image.shape[0], image.shape[1]), size, spec.crop_window(*size), spec.interpolation)


def differing_bytes(resizer: str, image: Pixels, spec: PreprocessSpec) -> int:
    ours = carry_out(resizer, image, plan_for(image, spec))
    return int((ours != opencv_resize_and_crop(image, spec)).sum())


def report(failures: list[str], cases: int) -> None:
    assert not failures, "; ".join(failures[:3]) + f" ... {len(failures)} of {cases} cases differ"


@SPECS
@RESIZER
def test_awkward_sizes_equal_opencv(resizer: str, spec: PreprocessSpec) -> None:
    failures = []
    for height, width in AWKWARD_SIZES:
        count = differing_bytes(resizer, noise(height, width), spec)
        if count:
            failures.append(f"{height} x {width}: {count} bytes")
    report(failures, len(AWKWARD_SIZES))


@SPECS
@RESIZER
def test_random_sizes_equal_opencv(resizer: str, spec: PreprocessSpec) -> None:
    """Sizes are spread evenly over their logarithm, so that small and large pictures are equally likely."""
    random = np.random.default_rng(20260801)
    failures, cases = [], 150
    for case in range(cases):
        height, width = (int(np.exp(random.uniform(np.log(8), np.log(900)))) for _ in range(2))
        count = differing_bytes(resizer, noise(height, width, seed=case), spec)
        if count:
            failures.append(f"{height} x {width} (seed {case}): {count} bytes")
    report(failures, cases)


@SPECS
@RESIZER
@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_extreme_values_stay_in_range(resizer: str, spec: PreprocessSpec, value: int) -> None:
    for height, width in [(1, 1), (100, 150), (375, 500), (600, 1100), (512, 512), (768, 768)]:
        image = np.full((height, width, 3), value, np.uint8)
        assert differing_bytes(resizer, image, spec) == 0, (height, width)


@RESIZER
@pytest.mark.parametrize("interpolation", ["area", "linear"])
def test_any_window_is_cut_out_of_the_whole(resizer: str, interpolation: str) -> None:
    """Windows at every corner, of one pixel, and of everything; the recipes only ever ask for the middle."""
    flag = cv2.INTER_AREA if interpolation == "area" else cv2.INTER_LINEAR
    for (height, width), (new_height, new_width) in [
        ((40, 60), (20, 30)), ((41, 60), (20, 30)), ((60, 45), (20, 15)), ((9, 11), (30, 29)), ((50, 9), (20, 30)),
        ((7, 7), (7, 7)), ((1, 1), (5, 4)), ((2, 90), (1, 1)),
    ]:  # fmt: skip
        image = noise(height, width)
        whole = cv2.resize(image, (new_width, new_height), interpolation=flag)
        for window in [
            Window(0, 0, new_height, new_width), Window(0, 0, 1, 1), Window(new_height - 1, new_width - 1, 1, 1),
            Window(new_height // 2, 0, new_height - new_height // 2, (new_width + 1) // 2),
        ]:  # fmt: skip
            plan = plan_resize((height, width), (new_height, new_width), window, interpolation)  # type: ignore[arg-type]
            expected = whole[window.top : window.top + window.height, window.left : window.left + window.width]
            case = f"{height} x {width} -> {new_height} x {new_width}, {window}"
            np.testing.assert_array_equal(carry_out(resizer, image, plan), expected, err_msg=case)


@pytest.mark.parametrize(
    ("height", "width", "spec", "kind"),
    [
        (512, 512, IMAGENET, BlockMean),
        (512, 512, MOBILENET, BlockMean),
        (768, 768, IMAGENET, BlockMean),
        (768, 768, MOBILENET, Bilinear),
        (375, 500, IMAGENET, AreaMean),
        (375, 500, MOBILENET, Bilinear),
        (200, 300, IMAGENET, Bilinear),
        (256, 256, IMAGENET, BlockMean),
    ],
)
def test_each_code_path_is_reached(height: int, width: int, spec: PreprocessSpec, kind: type) -> None:
    """The tests above would prove little if their sizes all took one path."""
    assert isinstance(plan_for(noise(height, width), spec), kind)


def test_only_what_the_crop_needs_is_read() -> None:
    """A picture of 1 x 5000 would be resized to 256 x 1,280,000; its crop needs two of its pixels."""
    size = IMAGENET.resized_size(1, 5000)
    assert size == (256, 1_280_000)
    plan = plan_resize((1, 5000), size, IMAGENET.crop_window(*size), "area")
    assert plan.source.height == 1
    assert plan.source.width <= 3
