"""The benchmark's model: its published file, downloaded and opened once to see that it is what the harness expects."""

from __future__ import annotations

from pathlib import Path

from backend import BackendError, InferenceSession

from ..backends.numba import tensor_info
from ..config import ProfileName
from ..errors import BadInputError
from ..profiles import PROFILES, choose_output, doubt_about_input
from ..progress import Progress
from .download import download


def get_model(profile_name: ProfileName, output: Path, progress: Progress, *, url: str | None = None) -> Path:
    """Download a profile's published model into a folder and check its interface; returns its path.

    url: a mirror of the same file. Raises: BadInputError if nothing is published for the profile; else as `download`.
    """
    profile = PROFILES[profile_name]
    if profile.official is None:
        published = ", ".join(name for name, one in PROFILES.items() if one.official is not None)
        raise BadInputError(f"no model is published for profile {profile_name}; there is one for {published}")
    target = output / profile.official.name
    download(url or profile.official.urls[0], profile.official.md5[0], target, progress)
    progress.phase(f"opening {target}")
    check_interface(target, profile_name)
    return target


def check_interface(model: Path, profile_name: ProfileName) -> None:
    """Raises: BadInputError if a model's input or outputs are not those of its profile."""
    try:
        session = InferenceSession(model, threads=1)
    except BackendError as error:
        raise BadInputError(" ".join(str(error).split())) from error
    inputs = [tensor_info(node) for node in session.get_inputs()]
    doubt = doubt_about_input(PROFILES[profile_name], inputs[0].name)
    if doubt is not None:
        raise BadInputError(f"{model}: {doubt}")
    choose_output([tensor_info(node) for node in session.get_outputs()], str(model))
