"""What tests of the local host and of the worker take back."""

import os
import sys
from collections.abc import Iterator
from unittest import mock

import pytest


@pytest.fixture
def as_in_a_new_process() -> Iterator[None]:
    """Takes back what loading an app does to the process."""
    path = sys.path.copy()
    sys.modules.pop("function_app", None)  # the product's own, where another test of this process has loaded it
    with mock.patch.dict(os.environ, {"Cron": "0 0 0 * * *"}):
        yield
    sys.path[:] = path
    sys.modules.pop("function_app", None)
