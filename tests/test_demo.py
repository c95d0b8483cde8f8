"""The demo: what it promises is there, and tells of the same buildings."""

import geopandas

from pipeline import open_objects
from pipeline.cli.demo import run_demo


def test_demo(tmp_path):
    (tmp_path / "demo").mkdir()
    for name in ("buildings.tif", "buildings.gpkg", "report.html"):
        (tmp_path / "demo" / name).write_text("of an earlier demo")
    lines = list(run_demo(tmp_path / "demo"))
    named = {line.split()[1] for line in lines if line.startswith("wrote ")}
    assert named == {str(path) for path in (tmp_path / "demo").iterdir() if path.suffix not in (".xml", ".sha256")}
    buildings = geopandas.read_file(tmp_path / "demo" / "buildings.gpkg")
    _, table = open_objects(tmp_path / "demo" / "objects.zarr")
    assert 15 <= len(buildings) <= 30
    assert sorted(buildings["id"]) == sorted(table["id"])
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert f"{len(buildings)} objects" in page
    assert "CC-BY-4.0" in page
