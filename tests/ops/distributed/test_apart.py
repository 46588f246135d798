"""A process of its own: what it returns and raises, and its death."""

import math
import os

import pytest

from ops.distributed.apart import apart
from ops.errors import ResourceError

pytestmark = pytest.mark.slow


def test_it_returns_raises_and_dies():
    assert apart(math.sqrt, 4.0) == 2.0
    with pytest.raises(ValueError, match="math domain error"):
        apart(math.sqrt, -1.0)
    with pytest.raises(ResourceError, match="the process for _exit was killed"):
        apart(os._exit, 9)
