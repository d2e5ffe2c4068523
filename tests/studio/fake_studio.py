"""A studio that only pretends: the service's shape with everything in memory, for tests of the page."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dora_diffusion.config import TrainConfig
from dora_diffusion.errors import StudioError
from dora_diffusion.studio.bases import Base, BaseCheck
from dora_diffusion.studio.estimates import Estimate
from dora_diffusion.studio.jobs import Failure, Job, Preview, Remedy
from dora_diffusion.studio.subjects import PhotoNote, Subject
