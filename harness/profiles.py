"""The models we know how to feed and score: recipe of the images, LoadGen's settings, meaning of the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from preprocessing import IMAGENET, MOBILENET, PreprocessSpec

from .config import ProfileName
from .errors import BadInputError

IMAGENET_CLASS_COUNT: Final = 1000
IMAGENET_VALIDATION_COUNT: Final = 50_000
"""Images of the ImageNet 2012 validation set, all of which an official accuracy run answers."""


@dataclass(frozen=True)
class Profile:
    """A kind of model.

    `spec`: how its images are made. `loadgen_model`: the name whose official settings apply.
    `not_submittable`: why such runs cannot be submitted as they are; empty for a benchmark of the current round.
    """

    name: ProfileName
    spec: PreprocessSpec
    loadgen_model: str
    not_submittable: tuple[str, ...] = ()


PROFILES: Final[Mapping[ProfileName, Profile]] = {
    profile.name: profile
    for profile in (
        Profile("resnet50", IMAGENET, "resnet50"),
        Profile(
            "mobilenet",
            MOBILENET,
            "resnet50",
            ("MobileNet is no benchmark of this round: LoadGen's settings for resnet50 are used",),
        ),
    )
}


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
