"""The report of a quantisation, for people."""

from __future__ import annotations

import math
from collections.abc import Iterator

from backend import detect
from backend.simd.isa import AVX512_VNNI, AVX_VNNI

from .measure import COLLAPSED_LEVELS
from .run import Outcome

_WORST: int = 10


def report_lines(outcome: Outcome) -> Iterator[str]:
    """The lines to print: layers with their SQNR, agreement, what is doubtful, files."""
    config = outcome.config
    yield f"calibrated on {outcome.images.source}, method {config.method}"
    if outcome.kept:
        yield f"kept in float32: {', '.join(outcome.kept)}"
    if outcome.tensors:
        width = max(len(tensor.tensor) for tensor in outcome.tensors)
        yield f"{'activation':{width}}  {'low':>10}  {'high':>10}  SQNR dB"
        for tensor in outcome.tensors:
            yield f"{tensor.tensor:{width}}  {tensor.low:10.4g}  {tensor.high:10.4g}  {tensor.sqnr_db:7.1f}"
        worst = min(outcome.tensors, key=lambda tensor: tensor.sqnr_db)
        yield f"lowest SQNR: {worst.sqnr_db:.1f} dB, {worst.tensor}"
    where = "the calibration images themselves" if outcome.tested_on_calibration else "images not calibrated on"
    share = 100 * outcome.agreeing / outcome.tested
    yield f"same top-1 class as float32: {outcome.agreeing} of {outcome.tested} ({share:.1f} %), {where}"
    isa = detect().isa
    if isa.architecture == "x86_64" and not {AVX512_VNNI, AVX_VNNI} & set(isa.extensions):
        yield (
            "note: measured by onnxruntime, whose sums of bytes may saturate on a CPU without VNNI, as this one is; "
            "those of 'run' do not"
        )
    yield from _stability_lines(outcome)
    yield from _spread_lines(outcome)
    yield f"model: {config.output}"
    yield f"report: {config.report_path}"


def _stability_lines(outcome: Outcome) -> Iterator[str]:
    stability = outcome.stability
    if math.isnan(stability.spread):
        yield "warning: ranges come from one image: how stable they are is unknown; calibrate on more"
        return
    yield (
        f"ranges of single images differ by {100 * stability.spread:.0f} % (median standard deviation, "
        f"{stability.images} images); {100 * stability.uncovered:.0f} % of the ranges would be over 10 % smaller "
        "without one of the images"
    )
    if stability.uncovered > 0.25:
        other = ", or try --method percentile" if outcome.config.method == "minmax" else ""
        yield f"warning: many ranges hang on a single image: calibrate on more{other}"


def _spread_lines(outcome: Outcome) -> Iterator[str]:
    if outcome.spreads and not any(spread.collapsed_channels for spread in outcome.spreads):
        least = outcome.spreads[0]
        yield (
            f"per-tensor weights: every channel keeps {COLLAPSED_LEVELS} of 127 steps or more, the least "
            f"{least.fewest_levels:.1f}, in {least.layer}"
        )
    for spread in (outcome.spreads or ())[:_WORST]:
        if spread.collapsed_channels:
            yield (
                f"warning: per-tensor weights collapse in {spread.layer}: {spread.collapsed_channels} of "
                f"{spread.channels} channels keep fewer than {COLLAPSED_LEVELS} of 127 steps, one of them "
                f"{spread.fewest_levels:.1f}; without --per-tensor every channel keeps 127"
            )
