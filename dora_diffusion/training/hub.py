"""The model hub: asked before the first step who is uploading, given the finished run's files after the last.

The token is not a setting, so that it is never written into the run's folder: the hub's own package finds it, where
``hf auth login`` left it or in the environment.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dora_diffusion.config import RunConfig
from dora_diffusion.errors import ConfigError, MachineError, TrainingError
from dora_diffusion.formats import WEIGHTS_NAME

PUBLIC = (WEIGHTS_NAME, "README.md", "samples/step-*.png")
"""What is uploaded. Settings, metrics and logs stay: they hold folders of this machine."""


@dataclass(frozen=True)
class Hub:
    """A repository that the run is uploaded to."""

    api: Any
    repository: str

    def make_repository(self) -> None:
        """Make the repository, if it is not there yet: whoever may not write learns it before the first step.

        Raises:
            MachineError: the hub refuses.
        """
        try:
            self.api.create_repo(self.repository, exist_ok=True)
        except Exception as error:  # the network's own kinds among them
            raise MachineError(
                f"--push_to_hub: the repository {self.repository} cannot be made or written: {_first_line(error)} "
                "Use a token that may write, another --hub_model_id, or leave --push_to_hub out."
            ) from error

    def upload(self, folder: Path) -> str:
        """Upload the public files of a finished run; returns what to tell the user.

        Raises:
            TrainingError: it failed. The run is untouched; the message says how to upload it by hand.
        """
        try:
            self.api.upload_folder(
                repo_id=self.repository,
                folder_path=folder,
                allow_patterns=list(PUBLIC),
                commit_message="Adapter, card and previews",
            )
        except Exception as error:
            include = " ".join(f"--include '{pattern}'" for pattern in PUBLIC)
            raise TrainingError(
                f"The run is finished and lies in {folder}, but its upload to {self.repository} failed: "
                f"{_first_line(error)} Start the same command again, or upload it by hand: "
                f"hf upload {self.repository} '{folder}' . {include}"
            ) from error
        return f"Uploaded to {self.repository} on the hub."


def connect(run: RunConfig) -> Hub | None:
    """The hub as the run's user; None where nothing is to be uploaded.

    Raises:
        MachineError: nobody is logged in, the token is not accepted or only reads, or the hub cannot be reached.
        ConfigError: the repository's name is none.
    """
    if not run.push_to_hub:
        return None
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    from huggingface_hub.utils import validate_repo_id

    api = HfApi()
    remedy = "Log in with: hf auth login; or set the environment variable HF_TOKEN, or leave --push_to_hub out."
    try:
        user = api.whoami()
    except LocalTokenNotFoundError:
        raise MachineError(f"--push_to_hub needs a token that may write, and nobody is logged in. {remedy}") from None
    except HfHubHTTPError as error:
        raise MachineError(f"--push_to_hub: the hub does not accept the token: {_first_line(error)} {remedy}") from None
    except Exception as error:  # no network: as many kinds as there are libraries below
        raise MachineError(f"--push_to_hub: the hub cannot be reached: {_first_line(error)}") from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise MachineError(f"--push_to_hub needs a token that may write, and this one only reads. {remedy}")
    name = run.hub_model_id or run.output_dir.resolve().name
    repository = name if "/" in name else f"{user['name']}/{name}"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--hub_model_id must be owner/name, got {name!r}: {_first_line(error)}") from None
    return Hub(api, repository)


def _first_line(error: Exception) -> str:
    """The error's first line, as a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ") + "."
