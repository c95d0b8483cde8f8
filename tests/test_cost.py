"""What a run will cost: drawn blocks, estimates and intervals, prices, and the run that follows."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import pixels, write_raster

from models.errors import PlanError
from pipeline import estimate_cost, plan, run
from pipeline.cli.app import cli
from pipeline.inference.cost import Fleet, Measured, draw
from pipeline.inference.prices import SKELETON, Prices, read_prices


@pytest.fixture
def scene(tmp_path):
    values = pixels((3, 1024, 1024))
    return write_raster(tmp_path / "s.tif", values, descriptions=("red", "green", "blue"))


def shards(store: Path) -> int:
    """Bytes of all shards of a store, looked at by name."""
    return sum(
        f.stat().st_size for f in store.rglob("*") if f.is_file() and "c" in f.parent.parts and "blocks" not in f.parts
    )


@pytest.mark.slow
def test_where_all_blocks_are_done_bytes_are_those_of_the_run(scene, bundle_of, tmp_path):
    options = {"tile": 128, "block": 256, "threads": 2}
    cost = estimate_cost(
        plan(scene, bundle_of(), **options), Prices("EUR"), sampled=16, scratch=str(tmp_path), show=False
    )
    assert not list(tmp_path.glob("swathe-cost-*"))
    run(scene, bundle_of(), tmp_path / "o.zarr", show=False, **options)
    written = shards(tmp_path / "o.zarr")
    assert cost.written.low <= cost.written.value <= cost.written.high
    assert abs(cost.written.value / written - 1) < 0.2
    assert (cost.blocks, cost.sampled) == (16 + 4, 16 + 4)
    assert cost.hours.low < cost.hours.value < cost.hours.high
    assert (cost.requests.put, cost.requests.get) == (20 * 3, 20)


@pytest.mark.slow
def test_more_is_done_where_half_is_nodata(bundle_of, tmp_path):
    values = pixels((3, 1024, 1024), seed=3)
    values[:, :, 512:] = 0
    scene = write_raster(tmp_path / "half.tif", values, nodata=0, descriptions=("red", "green", "blue"))
    options = {"tile": 64, "block": 64, "threads": 2}
    prepared = plan(scene, bundle_of(), **options)
    few = estimate_cost(prepared, Prices("EUR"), sampled=48, scratch=str(tmp_path), show=False)
    enough = estimate_cost(prepared, Prices("EUR"), scratch=str(tmp_path), show=False)
    assert (few.sampled, few.written.is_precise) == (60, False)
    assert (enough.sampled > 60, enough.written.is_precise) == (True, True)
    run(scene, bundle_of(), tmp_path / "o.zarr", show=False, **options)
    assert abs(enough.written.value / shards(tmp_path / "o.zarr") - 1) < 0.2


def test_drawn_blocks_are_planned_ones_spread_over_all():
    planned = np.ones((40, 60), bool)
    planned[:, :30] = False
    places, count = draw(planned, 2, 48)
    assert (count, len(places)) == (20 * 15, 12)
    drawn = np.kron(np.isin(np.arange(20 * 30), places @ [30, 1]).reshape(20, 30), np.ones((2, 2), bool))
    assert not (drawn & ~planned).any()
    quarters = [
        drawn[rows, columns].sum() for rows in (slice(20), slice(20, 40)) for columns in (slice(30, 45), slice(45, 60))
    ]
    assert min(quarters) >= 4
    assert (draw(planned, 2, 48)[0] == places).all()
    first = draw(np.ones((64, 64), bool), 1, 256)[0][:4]
    assert len({(row // 32, column // 32) for row, column in first.tolist()}) == 4  # some are spread as all are
    with pytest.raises(PlanError, match="no blocks are planned"):
        draw(np.zeros((3, 3), bool), 2, 8)


def measured(places: np.ndarray, count: int) -> Measured:
    return Measured(places, 100.0 * count, count, (count,), (1,), (count,), 2, 0.0, len(places), Fleet(1, 1, 0), 100.0)


def test_intervals_hold_as_often_as_they_say():
    random = np.random.default_rng(1)
    everything = random.gamma(2.0, 1.0, 2000) * (random.random(2000) < 0.7)  # a third costs nothing, as the sea
    hit = 0
    for _ in range(400):
        some = random.choice(everything, 30, replace=False)
        places = np.column_stack([np.full(30, 100.0), some, some, some])
        found = measured(places, len(everything)).cost(Prices("EUR", worker_hour=3600.0)).money
        hit += found.low <= everything.sum() <= found.high
    assert 0.85 < hit / 400 < 0.95


def test_money_is_the_sum_of_what_is_counted():
    places = np.column_stack([np.full(4, 100.0), np.full(4, 9.0), np.full(4, 1e9), np.full(4, 2e9)])
    prices = Prices("EUR", core_hour=2.0, put_1000=1000.0, stored_gb_month=0.5, read_gb=0.25)
    cost = measured(places, 400).cost(prices)
    assert cost.hours.value == pytest.approx(1.0)
    assert cost.money.value == pytest.approx(2.0 * 1.0 + 1200 + 800 * 0.5 + 400 * 0.25)
    twice = measured(places, 400).cost(prices, area_km2=8.0)  # 400 places of 100 pixels of 100 m2 are 4
    assert twice.hours.value == pytest.approx(2.0)
    assert twice.blocks == 800
    wide = measured(places, 400).cost(prices, workers=4)
    assert wide.fleet.threads == 4
    assert wide.hours.value == pytest.approx(0.25, rel=0.01)


def test_prices_are_checked_by_name_and_value(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(SKELETON)
    assert read_prices(file).currency == "EUR"
    for text, said in [("currency = 'EUR'\nworker_hours = 1", "did you mean 'worker_hour'"),
                       ("currency = 'EUR'\nget_1000 = -1", "a price is 0 or more"),
                       ("put_1000 = 1", "currency is missing"),
                       ("currency = 'EUR'\nget_1000 = 'x'", "must be a number"), ("=", "is no TOML")]:  # fmt: skip
        file.write_text(text)
        with pytest.raises(PlanError, match=said):
            read_prices(file)
    with pytest.raises(PlanError, match="swathe cluster prices"):
        read_prices(tmp_path / "missing.toml")


def test_the_command_prints_the_cost(scene, bundle_of, tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(CliRunner().invoke(cli, ["cluster", "prices"]).output)
    asked = ["plan", scene, "-m", str(bundle_of().path), "--block", "256", "--blocks-sampled", "8"]
    done = CliRunner().invoke(
        cli, [*map(str, asked), "--cost", str(file), "--area-km2", "300000", "--workers-wanted", "50"]
    )
    assert done.exit_code == 0, done.output
    for word in ("cost     from", "on 50 workers", "core-h", "GB", "PUT", "EUR"):
        assert word in done.output
    refused = CliRunner().invoke(cli, [*map(str, asked)])
    assert refused.exit_code == 2
    assert "are of --cost" in refused.output
