"""A studio with one subject that was taught, whose service is a fake."""

from pathlib import Path
from typing import Any

import pytest
from fake_makers import trained_teapot
from fake_studio import FakeStudio


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    found = FakeStudio(tmp_path / "home")
    trained_teapot(found, [])
    return found
