"""The page of settings is the declarations', and the site has every page that its contents name."""

import re
from pathlib import Path

import workflows
from workflows.docs import gather, page

HERE = Path(workflows.__file__).parent


def test_the_page_is_current():
    assert (HERE / "SETTINGS.md").read_text() == page(), "run `make docs`"


def test_the_site_has_the_pages_that_it_names(tmp_path):
    gather(tmp_path)
    named = re.findall(r": (\S+\.md)$", (HERE / "site.yml").read_text(), re.MULTILINE)
    assert len(named) > 8
    assert [each for each in named if not (tmp_path / each).is_file()] == []
    assert (tmp_path / "workflows" / "demo.png").is_file()
