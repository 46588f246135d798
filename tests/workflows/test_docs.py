"""The page of settings is the declarations'."""

from pathlib import Path

import workflows
from workflows.docs import page


def test_the_page_is_current():
    stored = Path(workflows.__file__).parent / "SETTINGS.md"
    assert stored.read_text() == page(), "run `make docs`"
