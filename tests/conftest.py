"""Fixtures shared by all tests."""
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"  # reference numbers and pictures, where a checkout has them


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data beside the project; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the project: the larger reference data are not here")
    return SHARED
