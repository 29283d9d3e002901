"""The Kubernetes manifests: put together as kustomize does, checked against the API's schemas and against each other."""

import copy
import os
import pathlib
import subprocess

import pytest
import yaml

from conftest import BUILD, CHECKOUT, WAIT_S

MANIFESTS = CHECKOUT / "packaging" / "kubernetes"
CHECKERS = pathlib.Path(os.environ.get("UNETSERVE_CHECKERS", CHECKOUT / "build" / "checkers"))
OVERLAYS = ["cpu", "gpu"]

# What KEDA and the Prometheus operator document for their kinds, as far as it is used here.
SCALED_OBJECT = {"scaleTargetRef", "pollingInterval", "cooldownPeriod", "minReplicaCount", "maxReplicaCount",
                 "triggers"}
PROMETHEUS_TRIGGER = {"serverAddress", "query", "threshold"}
SERVICE_MONITOR = {"selector", "endpoints"}
ENDPOINT = {"port", "path", "interval", "scrapeTimeout"}


def merged(base, patch):
    """A strategic merge: objects by key, lists of named things by name, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        result = dict(base)
        for key, value in patch.items():
            result[key] = merged(base[key], value) if key in base else copy.deepcopy(value)
        return result
    if isinstance(base, list) and isinstance(patch, list) and all(
            isinstance(one, dict) and "name" in one for one in base + patch):
        result = [copy.deepcopy(one) for one in base]
        for one in patch:
            places = [i for i, old in enumerate(result) if old["name"] == one["name"]]
            if places:
                result[places[0]] = merged(result[places[0]], one)
            else:
                result.append(copy.deepcopy(one))
        return result
    return copy.deepcopy(patch)


def read(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def collect(directory):
    """Every object of a kustomization, with its patches, images and namespace applied."""
    kustomization = read(directory / "kustomization.yaml")[0]
    known = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "labels", "images",
             "patches"}
    assert set(kustomization) <= known, "this test does not know what that key does"
    objects = []
    for name in kustomization.get("resources", []) + kustomization.get("components", []):
        path = (directory / name).resolve()
        objects += collect(path) if path.is_dir() else read(path)
    for generator in kustomization.get("configMapGenerator", []):
        data = {name: (directory / name).read_text() for name in generator["files"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
    for patch in kustomization.get("patches", []):
        target = [i for i, one in enumerate(objects) if one["kind"] == patch["target"]["kind"] and
                  one["metadata"]["name"] == patch["target"]["name"]]
        assert len(target) == 1
        objects[target[0]] = merged(objects[target[0]], read(directory / patch["path"])[0])
    for image in kustomization.get("images", []):
        found = 0
        for one in objects:
            if one["kind"] == "Deployment":
                for container in one["spec"]["template"]["spec"]["containers"]:
                    name, _, _ = container["image"].partition(":")
                    if name == image["name"]:
                        container["image"] = f"{image.get('newName', name)}:{image['newTag']}"
                        found += 1
        assert found == 1, image
    for one in objects:
        if "namespace" in kustomization:
            one["metadata"]["namespace"] = kustomization["namespace"]
    return objects


def one_of(objects, kind):
    found = [one for one in objects if one["kind"] == kind]
    assert len(found) == 1, (kind, len(found))
    return found[0]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_own_kinds_fit_the_schemas_of_the_api(overlay, tmp_path):
    checker = CHECKERS / "bin" / "kubernetes-validate"
    if not checker.exists():
        pytest.skip("no kubernetes-validate: make checkers")
    files = []
    for number, one in enumerate(collect(MANIFESTS / "overlays" / overlay)):
        files.append(tmp_path / f"{number}-{one['kind']}.yaml")
        files[-1].write_text(yaml.safe_dump(one))
    done = subprocess.run([checker, "--strict", *files], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(files) >= 8


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_ports_and_labels_meet(overlay):
    objects = collect(MANIFESTS / "overlays" / overlay)
    deployment = one_of(objects, "Deployment")
    pod = deployment["spec"]["template"]
    container = pod["spec"]["containers"][0]
    labels = pod["metadata"]["labels"]
    service = one_of(objects, "Service")

    for selector in (deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"],
                     one_of(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
                     one_of(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert one_of(objects, "NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] in ports

    ingress = one_of(objects, "Ingress")
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert ingress["spec"]["tls"][0]["hosts"] == [ingress["spec"]["rules"][0]["host"]]

    scaler = one_of(objects, "HorizontalPodAutoscaler")
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["minReplicas"] >= deployment["spec"]["replicas"]

    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    config_map = one_of(objects, "ConfigMap")
    mounted = [v for v in pod["spec"]["volumes"] if "configMap" in v]
    assert mounted[0]["configMap"]["name"] == config_map["metadata"]["name"]
    assert container["args"] == ["-c", "/etc/unetserve/unetserve.conf"]
    assert list(config_map["data"]) == ["unetserve.conf"]
    assert container["image"].endswith(":gpu" if overlay == "gpu" else ":latest")
    assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == (overlay == "gpu")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pods_end_after_their_drain(overlay):
    objects = collect(MANIFESTS / "overlays" / overlay)
    pod = one_of(objects, "Deployment")["spec"]["template"]["spec"]
    text = one_of(objects, "ConfigMap")["data"]["unetserve.conf"]
    drain_ms = [int(line.split("=")[1]) for line in text.splitlines() if line.startswith("drain_timeout_ms")]
    wait_s = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > wait_s + drain_ms[0] / 1000


def test_the_configuration_is_in_order_and_listens_where_the_container_says(tmp_path):
    text = one_of(collect(MANIFESTS / "base"), "ConfigMap")["data"]["unetserve.conf"]
    container = one_of(collect(MANIFESTS / "base"), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert f"listen = 0.0.0.0:{container['ports'][0]['containerPort']}" in text
    model = "/models/land-cover"
    assert f"path = {model}\n" in text
    path = tmp_path / "unetserve.conf"
    path.write_text(text.replace(model, str(CHECKOUT / "packaging" / "models" / "s2-worldcover")))
    done = subprocess.run([BUILD / "unetserve", "-c", path, "--check"], capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == 0, done.stderr


def test_kinds_of_others_use_documented_fields():
    scaled = one_of(collect(MANIFESTS / "components" / "keda"), "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    assert set(scaled["spec"]) <= SCALED_OBJECT
    for trigger in scaled["spec"]["triggers"]:
        assert trigger["type"] == "prometheus" and set(trigger["metadata"]) == PROMETHEUS_TRIGGER
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
    monitor = one_of(collect(MANIFESTS / "components" / "servicemonitor"), "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert set(monitor["spec"]) <= SERVICE_MONITOR
    service = one_of(collect(MANIFESTS / "base"), "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    for endpoint in monitor["spec"]["endpoints"]:
        assert set(endpoint) <= ENDPOINT
        assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]


def test_the_metric_that_pods_multiply_by_exists(start_server, simple_model):
    import requests
    scaler = one_of(collect(MANIFESTS / "components" / "hpa"), "HorizontalPodAutoscaler")
    scaled = one_of(collect(MANIFESTS / "components" / "keda"), "ScaledObject")
    name = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert name in scaled["spec"]["triggers"][0]["metadata"]["query"]
    server = start_server(simple_model)
    lines = requests.get(server.url + "/metrics", timeout=WAIT_S).text.splitlines()
    assert f"# TYPE {name} gauge" in lines
    server.stop()
