"""Fixtures of the render tests."""

from __future__ import annotations

import pytest
from chart import Manifest, render_chart
from profiles import PROFILES


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    """The name of each profile in turn."""
    return str(request.param)


@pytest.fixture
def manifests(profile: str) -> list[Manifest]:
    """The manifests of each profile in turn."""
    return render_chart(PROFILES[profile])
