import numpy as np, time
from helpers import pixels, write_raster
from pipeline import run, segment
import pytest

@pytest.mark.parametrize("arch", ["simple-unet", "unet", "unet-resnet"])
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_x(bundle_of, client, tmp_path, arch, engine):
    b = bundle_of(arch)
    print(b.facts.footprint)
    p = write_raster(tmp_path / "a.tif", pixels((3, 100, 130)), nodata=0)
    t=time.time()
    run(p, b, tmp_path / "o.zarr", client=client, show=False, engine=engine)
    m = segment(p, b, engine=engine)
    q = m.probability.compute()
    print(time.time()-t, q.std(("y","x")).values, q.mean(("y","x")).values, m.dtypes)
