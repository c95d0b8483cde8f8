"""Kubernetes, Gateway, Coiled, containers: what they are asked for fits schemas and signatures. None is run."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.errors import ClusterError
from pipeline.cluster.options import Cluster
from pipeline.cluster.profiles import read_profile, template

ROOT = Path(__file__).parents[1]


class Recorded:
    """Stands for a library's class: takes only what that takes, and notes what it is asked."""

    def __init__(self, real: type, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self.real, self.asked, self.scaled = real, {}, []
        monkeypatch.setattr(module, real.__name__, self)

    def __call__(self, **keywords: Any) -> "Recorded":
        inspect.signature(self.real).bind(**keywords)
        self.asked = keywords
        return self

    def adapt(self, **keywords: Any) -> None:
        inspect.signature(self.real.adapt).bind(self, **keywords)
        self.scaled.append(keywords)

    def scale(self, count: int) -> None:
        inspect.signature(self.real.scale).bind(self, count)
        self.scaled.append(count)


def profile_of(kind: str, tmp_path: Path, text: str) -> Any:
    path = tmp_path / f"{kind}.toml"
    path.write_text(text)
    return read_profile(kind, str(path))


KUBERNETES = """
image = "registry.example.org/swathe:0.1.0"
adapt = [1, 40]
gpus = 1
volume = "imagery"
service_account = "swathe"
[node_selector]
"disk" = "fast"
[env]
GDAL_HTTP_MAX_RETRY = "5"
"""


@pytest.mark.parametrize("text", [KUBERNETES, 'image = "x:1"\nnamespace = "maps"'])
def test_the_resource_of_kubernetes_fits_its_schemas(tmp_path, text):
    kubernetes = pytest.importorskip("pipeline.cluster.launchers.kubernetes")
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    import dask_kubernetes
    import jsonschema

    made = kubernetes.manifest(profile_of("kubernetes", tmp_path, text), "swathe-1")
    for part in ("worker", "scheduler"):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": part}, "spec": made["spec"][part]["spec"]}
        kubernetes_validate.validate(_without_nothing(pod), "1.30", strict=True)
    folder = Path(dask_kubernetes.__file__).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.safe_load((folder / "daskcluster.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.validate(_without_nothing(made), schema)


def _without_nothing(value: Any) -> Any:
    """Leave out what is None, as the API server does."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    return [_without_nothing(item) for item in value] if isinstance(value, list) else value


def test_kubernetes_is_asked_for_the_resource(tmp_path, monkeypatch):
    kubernetes = pytest.importorskip("pipeline.cluster.launchers.kubernetes")
    profile, asked = (
        profile_of("kubernetes", tmp_path, KUBERNETES),
        Recorded(kubernetes.KubeCluster, monkeypatch, kubernetes),
    )
    kubernetes.start(profile, Cluster("kubernetes:x", insecure=True))
    worker = asked.asked["custom_cluster_spec"]["spec"]["worker"]
    assert worker["replicas"] == 1
    assert asked.scaled == [{"minimum": 1, "maximum": 40}]
    assert worker["spec"]["containers"][0]["args"][-2:] == ["--resources", "GPU=1"]
    with pytest.raises(ClusterError, match="has no TLS"):
        kubernetes.start(profile, Cluster("kubernetes:x", tls="new"))


def test_coiled_is_asked_for_what_it_knows(tmp_path, monkeypatch):
    coiled = pytest.importorskip("pipeline.cluster.launchers.coiled", reason="coiled is not installed")
    asked = Recorded(coiled.coiled.Cluster, monkeypatch, coiled.coiled)
    coiled.start(profile_of("coiled", tmp_path, 'workers = 3\nmemory = "16 GiB"\nspot = false'), Cluster("coiled:x"))
    assert asked.asked["n_workers"] == 3
    assert asked.asked["worker_memory"] == "16 GiB"
    assert not asked.scaled
    assert asked.asked["spot_policy"] == "on-demand"
    coiled.start(profile_of("coiled", tmp_path, "adapt = [2, 9]"), Cluster("coiled:x"))
    assert asked.asked["n_workers"] == 2
    assert asked.scaled == [{"minimum": 2, "maximum": 9}]


def test_a_gateway_is_asked_for_a_cluster_with_its_own_options(tmp_path, monkeypatch):
    gateway = pytest.importorskip("pipeline.cluster.launchers.gateway")

    class Offers:
        def __init__(self, **keywords: Any) -> None:
            inspect.signature(gateway_class).bind(**keywords)

        def __enter__(self) -> "Offers":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def cluster_options(self) -> dict[str, Any]:
            return {"worker_cores": 1, "image": "old"}

    gateway_class = gateway.Gateway
    monkeypatch.setattr(gateway, "Gateway", Offers)
    asked = Recorded(gateway.GatewayCluster, monkeypatch, gateway)
    text = 'address = "https://g.example.org"\nworkers = 5\n[options]\nworker_cores = 4'
    gateway.start(profile_of("gateway", tmp_path, text), Cluster("gateway:x"))
    assert asked.asked["cluster_options"] == {"worker_cores": 4, "image": "old"}
    assert asked.scaled == [5]
    with pytest.raises(ClusterError, match="no option 'cores'; it has: worker_cores, image"):
        gateway.start(profile_of("gateway", tmp_path, text.replace("worker_cores", "cores")), Cluster("gateway:x"))


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("kubernetes", 'image = "x"\nworker = 3', "unknown key 'worker'; did you mean 'workers'"),
        ("kubernetes", 'image = "x"\nadapt = [4, 2]', "adapt is two numbers of pods"),
        ("kubernetes", 'image = "x"\ngpus = 2', "gpus is 0 or 1"),
        ("gateway", 'address = "gateway.example.org"', "as https://gateway.example.org"),
        ("gateway", 'address = "https://g"\nadapt = [1]', "adapt is two numbers"),
    ],
)
def test_profiles_that_make_no_sense(tmp_path, kind, text, said):
    with pytest.raises(ClusterError, match=said):
        profile_of(kind, tmp_path, text)


@pytest.mark.parametrize("kind", ["kubernetes", "gateway"])
def test_templates_are_profiles(tmp_path, kind):
    assert profile_of(kind, tmp_path, template(kind))


def test_compose_starts_what_dask_knows(tmp_path):
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    file = yaml.safe_load((ROOT / "compose.yaml").read_text())
    commands = {"scheduler": scheduler, "worker": worker}
    for name, service in file["services"].items():
        words = service["command"]
        assert words[:2] == ["dask", name]
        known = {option for parameter in commands[name].params for option in parameter.opts + parameter.secondary_opts}
        assert {word for word in words if word.startswith("--")} <= known
        assert service["build"] == "."
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_copies_what_is_there_and_runs_as_nobody_special():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line and line[0] not in "# "]
    for copied in (words[1:-1] for words in lines if words[0] == "COPY"):
        assert all((ROOT / name).exists() for name in copied)
    assert ["USER", "swathe"] in lines
