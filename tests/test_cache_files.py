"""Files of the user's cache: in place whole or not at all, and nothing depends on them."""

import logging
import os

import pytest

from models import files
from models.files import keep_file


def test_a_file_appears_whole_after_those_beside_it(tmp_path, monkeypatch):
    moved, real = [], os.replace

    def replace(part, target):
        moved.append(target.name)
        real(part, target)

    monkeypatch.setattr(files.os, "replace", replace)
    (tmp_path / "a.xml").write_text("old")

    def write(part):
        part.write_text("graph")
        for beside in ("a.bin", "z.bin"):
            part.with_name(beside).write_text("weights")
        assert (tmp_path / "a.xml").read_text() == "old"

    keep_file(tmp_path / "a.xml", "it", write)
    assert (tmp_path / "a.xml").read_text() == "graph"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "a.xml", "z.bin"]
    assert moved[-1] == "a.xml"


def failing(error):
    def write(part):
        part.write_text("ne")
        raise error

    return write


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("Can't write")])
def test_what_cannot_be_kept_is_logged_and_what_was_there_stays(tmp_path, caplog, error):
    (tmp_path / "a.json").write_text("old")
    with caplog.at_level(logging.INFO, "swathe"):
        keep_file(tmp_path / "a.json", "the choice", failing(error))
    assert f"the choice is not kept: {error}" in caplog.text
    assert os.listdir(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_without_a_folder_nothing_is_kept(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "swathe"):
        keep_file(tmp_path / "gone" / "a.json", "the choice", lambda part: part.write_text("new"))
    assert "the choice is not kept" in caplog.text


def test_other_errors_are_not_hidden(tmp_path):
    with pytest.raises(KeyError):
        keep_file(tmp_path / "a.json", "it", failing(KeyError()))
    assert os.listdir(tmp_path) == []
