"""Every table of results stands as its records say it, and a row whose code has changed since says so."""

import json

import pytest
from bench import results


def test_the_pages_have_the_tables_that_the_records_give():
    for page, text in results.tables().items():
        assert page.read_text() == text, f"{page.name}: run `python tests/bench/results.py --tables`"
        assert text.count("<!-- results -->") == 1


def test_every_record_has_a_job():
    jobs = {entry["job"] for entries in results.jobs().values() for entry in entries}
    assert json.loads(results.RECORDS.read_text()).keys() <= jobs


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("# a remark\n", True),
        ('"""Another title."""\n', True),
        ("RATE = 2\n", False),
        ("from ops import losses\n", False),
    ],
)
def test_a_change_of_code_is_a_change_of_mathematics(tmp_path, monkeypatch, change, same):
    (tmp_path / "trainers" / "toy").mkdir(parents=True)
    file = tmp_path / "trainers" / "toy" / "training.py"
    file.write_text("import torch\n")
    monkeypatch.setattr(results, "ROOT", tmp_path)
    before = results.mathematics("toy")
    file.write_text(change + "import torch\n")
    assert (results.mathematics("toy") == before) is same
