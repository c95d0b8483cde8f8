"""Where an import reads and writes: odd names, links and addresses are refused in a line, or are what they say."""

import io
import json
import os
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from test_import_limits import SMALL, small_state

from models import load_bundle
from models.errors import SwatheError
from models.importing import import_model, read_state_dict
from models.imports.recognise import recognise
from train.cli.app import cli


def one_line(read, *words):
    """Return the line in which something is refused."""
    with pytest.raises(SwatheError) as caught:
        read()
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said
    return said


@pytest.fixture(autouse=True)
def _in_a_folder_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def command(*words):
    return CliRunner().invoke(cli, [*words])


def settings_file(**changed) -> str:
    Path("c.json").write_text(json.dumps({**SMALL, **changed}))
    return "c.json"


# what a file is called


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_that_is_called_safetensors_is_read_by_its_content(zipped):
    torch.save({"state_dict": small_state()}, "w.safetensors", _use_new_zipfile_serialization=zipped)
    assert recognise("w.safetensors").facts["architecture"] == "unet"
    assert read_state_dict("w.safetensors").keys() == small_state().keys()
    assert import_model("w.safetensors", "b", config=SMALL).parameters


def test_safetensors_that_are_called_otherwise_are_read_by_their_content():
    safetensors.torch.save_file(small_state(), "w.pth")
    assert recognise("w.pth").facts["architecture"] == "unet"


def link_to_itself():
    os.symlink("loop.pth", "loop.pth")
    return "loop.pth"


def link_to_nowhere():
    os.symlink("none.pth", "link.pth")
    return "link.pth"


def through_a_file():
    Path("weights.pth").write_bytes(b"w")
    return "weights.pth/x"


NAMES = {
    "empty": (lambda: "", "no network is given"),
    "too long": (lambda: "a" * 300 + ".pth", "cannot be read: File name too long"),
    "link to itself": (link_to_itself, "cannot be read: Too many levels"),
    "link to nowhere": (link_to_nowhere, "a link to none.pth, which is not there"),
    "through a file": (through_a_file, "no such file or folder: weights.pth/x"),
    "null": (lambda: "a\0b", "cannot be read"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_lead_nowhere(kind):
    make, said = NAMES[kind]
    name = make()
    assert len(one_line(lambda: recognise(name), said)) < 500
    if kind != "null":  # no shell can give it
        for more in ((), ("-o", "b")):
            assert isinstance(command("import", name, *more).exception, SwatheError)


def test_files_that_may_not_be_read_are_named(monkeypatch):
    """Tests may run as root, who may read all."""
    torch.save(small_state(), "w.pth")
    opened = io.open

    def refusing(file, *rest, **more):
        if str(file).endswith("w.pth"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *rest, **more)

    monkeypatch.setattr("builtins.open", refusing)
    one_line(lambda: recognise("w.pth"), "w.pth cannot be read: Permission denied")
    one_line(lambda: read_state_dict("w.pth"), "w.pth cannot be read: Permission denied")


def test_folders_that_may_not_be_looked_into_are_named(monkeypatch):
    def refusing(path):
        raise PermissionError(13, "Permission denied", str(path))

    Path("f").mkdir()
    monkeypatch.setattr(Path, "is_file", refusing)
    one_line(lambda: recognise("f"), "f cannot be read: Permission denied")


# damaged headers


def test_safetensors_whose_places_are_infinite():
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,1e999]}}'
    Path("w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    one_line(lambda: recognise("w.safetensors"), "w.safetensors", "damaged safetensors")


def program(**members) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/models/model.json", "{}")
        archive.writestr("p/extra/swathe.json", json.dumps({"a": list(range(500))}))
    return packed.getvalue()


def test_programs_that_are_encrypted_or_damaged():
    whole = program()
    start = whole.index(b"p/extra/swathe.json") + len("p/extra/swathe.json")
    directory = whole.rindex(b"PK\x01\x02")
    encrypted = whole[: directory + 8] + b"\x01" + whole[directory + 9 :]
    wrong = whole[: directory + 16] + bytes(4) + whole[directory + 20 :]
    flipped = whole[:start] + bytes(20) + whole[start + 20 :]
    other = whole[: directory + 10] + b"\x63" + whole[directory + 11 :]
    for name, content in (("encrypted", encrypted), ("crc", wrong), ("flipped", flipped), ("method", other)):
        Path(f"{name}.pt2").write_bytes(content)
        one_line(lambda name=name: recognise(f"{name}.pt2"), f"{name}.pt2: swathe.json", "cannot be read")


# where it is written


def test_the_folder_has_the_name_that_the_bundle_gets():
    """A model definition tells a name in its facts, which is not that of its file; settings go before it."""
    torch.save(small_state(), "w.pth")
    told = {"ModelType": "ImageClassification", "ModelFile": "w.pth", "ModelName": "Crops of 2020"}
    Path("a.emd").write_text(json.dumps(told))
    Path("c.json").write_text(json.dumps({key: value for key, value in SMALL.items() if key != "name"}))
    done = command("import", "a.emd", "--config", "c.json", "-q")
    assert done.exception is None, done.exception
    place = Path("../data/swathe/bundles").resolve()
    (made,) = [path for path in place.iterdir() if path.is_dir()]
    assert made.name == load_bundle(made).metadata.name == "crops-of-2020"
    assert f"wrote {made}  {made.name} " in done.output
    assert "already complete" in command("import", "a.emd", "--config", "c.json", "-q").output
    assert command("import", "a.emd", "--config", settings_file(name="other"), "-q").exception is None
    assert load_bundle(place / "other").metadata.name == "other"


@pytest.mark.parametrize("name", ["..", ".", "../up", "n" * 300])
def test_a_name_leads_to_no_other_folder(name):
    torch.save(small_state(), "w.pth")
    one_line(lambda: import_model("w.pth", config={**SMALL, "name": name}))
    assert not list(Path("..").rglob("bundle.json"))


REMOTE = ["s3://bucket/x", "https://example.org/x.zip", "s3:/bucket/x", "/vsis3/bucket/x"]


@pytest.mark.parametrize("place", REMOTE)
def test_bundles_are_not_written_to_addresses(place):
    torch.save(small_state(), "w.pth")
    before = sorted(os.listdir("."))
    one_line(lambda: import_model("w.pth", place, config=SMALL), "is not a local path")
    made = import_model("w.pth", "../bundle", config=SMALL)
    (done,) = [command("import", "w.pth", "--config", settings_file(), "-o", place)]
    assert "is not a local path" in str(done.exception)
    for words in (("export-model", str(made.path), "-o", f"{place}.onnx"),
                  ("export-model", str(made.path), "--for", "smp", "-o", place),
                  ("quantise", str(made.path), "--scenes", "none.tif", "-o", place)):  # fmt: skip
        assert "is not a local path" in str(command(*words).exception)
    assert sorted({*os.listdir(".")} - {"c.json"}) == before


def test_a_tilde_is_the_home_of_the_user(tmp_path):
    torch.save(small_state(), "w.pth")
    assert command("import", "w.pth", "--config", settings_file(), "-o", "~/b", "-q").exception is None
    assert (tmp_path / "home/b/bundle.json").is_file()
    assert command("export-model", str(tmp_path / "home/b"), "-o", "~/b.onnx", "-q").exception is None
    assert (tmp_path / "home/b.onnx").is_file()
    assert sorted(os.listdir(".")) == ["c.json", "w.pth"]


def test_an_empty_output_is_refused():
    torch.save(small_state(), "w.pth")
    one_line(lambda: import_model("w.pth", "", config=SMALL), "the output is empty")
    assert "the output is empty" in str(command("import", "w.pth", "--config", settings_file(), "-o", "").exception)
    assert not Path("../data").exists()
