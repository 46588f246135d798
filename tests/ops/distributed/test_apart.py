"""A process of its own: what it returns and raises, and its end when the time is over."""

import math
import time

import pytest

from ops.distributed.apart import apart
from ops.errors import ResourceError

pytestmark = pytest.mark.slow


def test_it_returns_raises_and_ends_with_the_time():
    assert apart(math.sqrt, 4.0) == 2.0
    with pytest.raises(ValueError, match="math domain error"):
        apart(math.sqrt, -1.0)
    with pytest.raises(ResourceError, match="the process for sleep was killed"):
        apart(time.sleep, 3600, over=lambda: True)
