"""The models we know how to feed and score: recipe of the images, LoadGen's settings, meaning of the outputs; and
what tells whether a model is the benchmark's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from preprocessing import IMAGENET, MOBILENET, PreprocessSpec

from .config import IMAGENET_CLASS_COUNT, ProfileName
from .errors import BadInputError
from .quantize.record import digest, read_record

IMAGENET_VALIDATION_COUNT: Final = 50_000
"""Images of the ImageNet 2012 validation set, all of which an official accuracy run answers."""


@dataclass(frozen=True)
class Official:
    """What MLPerf asks of a benchmark's model.

    `name`: of the published file. `md5`, `urls`: of each published version of it, as Zenodo states them.
    `input_name`: of its input. `accuracy_percent`: top-1 of the reference; `accuracy_share`: of which so much is asked.
    """

    name: str
    md5: tuple[str, ...]
    urls: tuple[str, ...]
    input_name: str
    accuracy_percent: float
    accuracy_share: float

    @property
    def least_accuracy_percent(self) -> float:
        """The benchmark's target."""
        return self.accuracy_share * self.accuracy_percent


@dataclass(frozen=True)
class Profile:
    """A kind of model.

    `spec`: how its images are made. `loadgen_model`: the name whose official settings apply.
    `official`: the benchmark's own model; None for what is no benchmark.
    `not_submittable`: why such runs cannot be submitted as they are; empty for a benchmark of the current round.
    """

    name: ProfileName
    spec: PreprocessSpec
    loadgen_model: str
    official: Official | None = None
    not_submittable: tuple[str, ...] = ()


RESNET50: Final = Official(
    name="resnet50_v1.onnx",
    md5=("f6a4da60cd5f084d97efc2c1ddb10beb", "a638cf028b5870da29e09ccc2f7182e7"),  # opset 11, opset 8
    urls=(
        "https://zenodo.org/records/4735647/files/resnet50_v1.onnx?download=1",
        "https://zenodo.org/records/2592612/files/resnet50_v1.onnx?download=1",
    ),
    input_name="input_tensor:0",
    accuracy_percent=76.46,
    accuracy_share=0.99,
)
"""Zenodo's records 4735647 and 2592612; the target of MLPerf Inference's closed division."""

PROFILES: Final[Mapping[ProfileName, Profile]] = {
    profile.name: profile
    for profile in (
        Profile("resnet50", IMAGENET, "resnet50", RESNET50),
        Profile(
            "mobilenet",
            MOBILENET,
            "resnet50",
            not_submittable=("MobileNet is no benchmark of this round: LoadGen's settings for resnet50 are used",),
        ),
    )
}


def not_the_official_model(profile: Profile, model: Path) -> str | None:
    """Why runs of this model file cannot be submitted; None if it is a published file to the byte, or was quantised
    from one, as its record says.
    """
    if profile.official is None:
        return None
    md5 = digest(model, "md5")
    record = read_record(model)
    if md5 in profile.official.md5 or (record is not None and record.get("model_md5") in profile.official.md5):
        return None
    origin = "was not quantised from one of" if record is not None else "is none of"
    return f"{model.name} (md5 {md5}) {origin} the published {profile.official.name} files"


def doubt_about_input(profile: Profile, input_name: str) -> str | None:
    """A warning if the name of a model's input speaks for another profile than the one it was given.

    A name proves nothing, but how pixels are to be scaled stands nowhere in an ONNX file.
    """
    own = profile.official
    if own is not None and input_name != own.input_name:
        others = " or ".join(f"--profile {name}" for name in PROFILES if name != profile.name)
        return (
            f"the model's input is named {input_name!r}, not {own.input_name!r} as in {own.name}, yet images are "
            f"prepared as for that: if it is another kind of model, add {others}"
        )
    for other in PROFILES.values():
        if own is None and other.official is not None and other.official.input_name == input_name:
            return (
                f"the model's input is named {input_name!r} as in {other.official.name}, but images are prepared for "
                f"profile {profile.name}: if it is such a model, use --profile {other.name}"
            )
    return None


@dataclass(frozen=True)
class TensorInfo:
    """A model's input or output as its engine describes it: unknown sizes are None."""

    name: str
    shape: tuple[int | None, ...]
    type: str


@dataclass(frozen=True)
class ClassOutput:
    """The output to read, and how its values become ImageNet classes 0..999.

    `kind`: "classes" (an ArgMax of shape [N]) or "scores" (shape [N, classes]).
    `label_offset`: added to the model's class: -1 where class 0 is "background".
    """

    name: str
    kind: Literal["classes", "scores"]
    label_offset: int

    def read(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The model's output for n images -> n ImageNet classes."""
        if self.kind == "scores":
            values = values.reshape(len(values), -1).argmax(axis=1)
        return values.reshape(-1).astype(np.int64) + self.label_offset

    def describe(self) -> str:
        """E.g. `ArgMax:0 (classes, label offset -1)`."""
        return f"{self.name} ({self.kind}, label offset {self.label_offset})"


def choose_output(outputs: Sequence[TensorInfo], model: str) -> ClassOutput:
    """Prefer an ArgMax output (one integer per image) to scores; take the label offset from the scores' width.

    Raises: BadInputError when no output gives scores over 1000 or 1001 classes, since the offset would be a guess.
    """
    scores = [o for o in outputs if "float" in o.type and len(o.shape) >= 2 and o.shape[1] in _LABEL_OFFSETS]
    if not scores:
        found = ", ".join(f"{o.name} {o.type} {list(o.shape)}" for o in outputs)
        raise BadInputError(
            f"{model}: no output holds scores over {' or '.join(map(str, _LABEL_OFFSETS))} ImageNet classes, "
            f"so its label offset is unknown; outputs found: {found}"
        )
    width = scores[0].shape[1]
    assert width is not None
    classes = [o for o in outputs if "int" in o.type]
    if classes:
        return ClassOutput(classes[0].name, "classes", _LABEL_OFFSETS[width])
    return ClassOutput(scores[0].name, "scores", _LABEL_OFFSETS[width])


_LABEL_OFFSETS: Final = {IMAGENET_CLASS_COUNT: 0, IMAGENET_CLASS_COUNT + 1: -1}
"""Label offset by number of classes: with 1001, class 0 is "background"."""
