"""A trained-looking adapter on the embedded base, text encoder included."""

import pytest
from moved import moved_state

from dora_diffusion.adapters import AdapterState
from dora_diffusion.registry import ADAPTERS


@pytest.fixture(scope="session", params=list(ADAPTERS))
def trained(request) -> AdapterState:
    """One adapter of every kind, attention and text encoder."""
    return moved_state(request.param)


@pytest.fixture(scope="session")
def trained_everywhere() -> AdapterState:
    """A DoRA on every layer the preset "full" names: linear layers, 1x1 and 3x3 convolutions."""
    return moved_state("dora", targets="full")
