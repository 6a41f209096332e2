"""The files for deployments: what their own tools say of them, and that they fit the edge that is built: every config
they hold passes `check`, every command exists, every path is mounted, every time-out is longer than what it waits for."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest
import yaml
from harness import HERE
from test_certificates import tool

ROOT = HERE.parents[1]
DEPLOY = ROOT / "conf/deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
RULES = DEPLOY / "prometheus/rules.yaml"
VENV = HERE / ".cache/venv-deploy/bin"


def run(*arguments, **options):
    """Runs a tool that must be content."""
    done = subprocess.run([str(part) for part in arguments], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def check(binary, stage, text):
    """`mcp-edge check` of a config whose files are below `stage`; gives the config as data."""
    for path in set(re.findall(r"/run/secrets/[\w./-]+", text)):
        file = pathlib.Path(str(stage) + path)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text("0123456789abcdef" * 4)
            file.chmod(0o440)
    staged = stage / "mcp-edge.yaml"
    staged.write_text(text.replace("/run/secrets/", f"{stage}/run/secrets/").replace("/var/lib/mcp-edge", f"{stage}/state"))
    run(binary, "check", "--config", staged)
    return yaml.safe_load(text)


@pytest.fixture
def stage(tmp_path, certificate):
    """A folder with the files that configs name by other ways than `${file:…}`."""
    tls = tmp_path / "run/secrets/tls"
    tls.mkdir(parents=True)
    files = certificate.files()
    shutil.copy(files["cert"], tls / "tls.crt")
    shutil.copy(files["key"], tls / "tls.key")
    run(tool("htpasswd"), "-b", "-c", "-s", tmp_path / ".htpasswd", "ann", "ann's")
    return tmp_path


def test_dockerfile(binary):
    run(VENV / "hadolint", "--failure-threshold", "info", ROOT / "Dockerfile")
    text = (ROOT / "Dockerfile").read_text()
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M) for name in line.split()]
    assert sorted(copied) == sorted(kept) and all((ROOT / name).exists() for name in copied)
    # the commands that it runs
    health = json.loads(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.M)[1])
    start = json.loads(re.search(r"^CMD (\[.*\])$", text, re.M)[1])
    assert health[:2] == ["/usr/bin/mcp-edge", "health"] and start[:2] == ["run", "--config"]
    for command in (health[1:], start[:1]):
        run(binary, *command, "--help")
    # no engine kills it before its own grace is over
    [seconds_left] = re.findall(r"^# docker run .*--stop-timeout (\d+) ", text, re.M)
    assert int(seconds_left) > 30


def test_compose(binary, stage):
    folder = DEPLOY / "compose"
    run(tool("docker-compose"), "-f", folder / "compose.yaml", "--profile", "observe", "config", "--quiet")
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    (stage / "prometheus.sha256").write_text("0123456789abcdef" * 4 + "\n")
    config = check(binary, stage, (folder / "edge/mcp-edge.yaml").read_text())
    edge = compose["services"]["edge"]
    mounted = [volume.split(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])]
    mounted = [name for name in mounted if name.startswith(".")]
    assert len(mounted) >= 5 and all((folder / name).exists() for name in mounted)
    ports = [str(listener["address"].rsplit(":", 1)[1]) for listener in config["listeners"]]
    assert ports == [port.split(":")[1] for port in edge["ports"]]
    assert seconds(edge["stop_grace_period"]) > seconds(config.get("shutdown", {}).get("grace", "30s"))
    [server] = config["upstreams"][0]["servers"]
    host, port = re.fullmatch(r"http://([\w-]+):(\d+)", server).groups()
    assert compose["services"][host]["environment"]["MCP_SERVER_PORT"] == port
    assert set(edge["networks"]) & set(compose["services"][host]["networks"])
    found_by_checks(config)
    # Prometheus asks the edge by its name, with the key, in a network that stays when the edge's container goes
    assert not [name for name, service in compose["services"].items() if "network_mode" in service]
    [job] = yaml.safe_load((folder / "prometheus.yaml").read_text())["scrape_configs"]
    [secret] = compose["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}" and secret in compose["secrets"]
    admin = config["admin"]["address"].rsplit(":", 1)
    assert job["static_configs"] == [{"targets": [f"edge:{admin[1]}"]}] and admin[0] == "0.0.0.0"
    assert admin[1] not in [port.split(":")[0] for port in edge["ports"]]
    [source] = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    for asked, asker in (("edge", "prometheus"), ("prometheus", "grafana")):
        assert set(compose["services"][asked]["networks"]) & set(compose["services"][asker]["networks"])
    # no log grows without bound
    assert {service["logging"]["driver"] for service in compose["services"].values()} == {"local"}


def found_by_checks(config):
    """Nothing but a check finds a server that accepts connections and answers nothing; nor does /readyz."""
    assert config["upstreams"] and all("mcp" in upstream["health"] for upstream in config["upstreams"])


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_kubernetes(binary, stage, file):
    assert len(MANIFESTS) >= 2
    run(VENV / "kubernetes-validate", "--strict", file)
    things = list(yaml.safe_load_all(file.read_text()))
    kinds = {thing["kind"] for thing in things}
    [text] = [thing["data"]["mcp-edge.yaml"] for thing in things if thing["kind"] == "ConfigMap"]
    config = check(binary, stage, text)
    found_by_checks(config)
    pods = {thing["metadata"]["name"]: thing["spec"]["template"] for thing in things if thing["kind"] in ("Deployment", "StatefulSet")}
    [pod] = [pod for pod in pods.values() if any(container["name"] == "edge" for container in pod["spec"]["containers"])]
    [edge] = [container for container in pod["spec"]["containers"] if container["name"] == "edge"]

    # what the config names is there, and the ports are those of the config
    mounts = {mount["mountPath"]: mount["name"] for mount in edge["volumeMounts"]}
    for path in re.findall(r"/(?:run|var|etc)/[\w./-]+", text):
        assert any(path == mount or path.startswith(mount + "/") for mount in mounts), path
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == set(mounts.values())
    ports = {port["name"]: port["containerPort"] for port in edge["ports"]}
    port = lambda address: int(address.rsplit(":", 1)[1])
    assert ports == {"https": port(config["listeners"][0]["address"]), "admin": port(config["admin"]["address"])}
    probes = [edge[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert all(probe["port"] == "admin" and probe["path"] in ("/healthz", "/readyz") for probe in probes)

    # nobody is killed who is still at work
    stop = seconds(config["shutdown"]["delay"]) + seconds(config["shutdown"]["grace"])
    assert pod["spec"]["terminationGracePeriodSeconds"] > stop
    for container in pod["spec"]["containers"]:
        if container is not edge:
            assert stop < container["lifecycle"]["preStop"]["sleep"]["seconds"] < pod["spec"]["terminationGracePeriodSeconds"]

    # selectors find their pods
    labels = [template["metadata"]["labels"] for template in pods.values()]
    for thing in things:
        if thing["kind"] == "Service":
            assert thing["spec"]["selector"] in labels
        if thing["kind"] == "PodDisruptionBudget":
            assert thing["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    for server in (server for upstream in config["upstreams"] for server in upstream["servers"]):
        if isinstance(server, dict):
            # each address of a headless service is a pod of its own
            [(name, number)] = re.findall(r"^http://([\w-]+):(\d+)$", server["dns"])
            [service] = [thing for thing in things if thing["kind"] == "Service" and thing["metadata"]["name"] == name]
            assert service["spec"]["clusterIP"] == "None"
            assert [str(port["port"]) for port in service["spec"]["ports"]] == [number]
            [served] = [template for template in pods.values() if template["metadata"]["labels"] == service["spec"]["selector"]]
            assert int(number) in [port["containerPort"] for port in served["spec"]["containers"][0]["ports"]]
            continue
        assert re.fullmatch(r"http://127\.0\.0\.1:8000", server)
    assert file.stem != "tier" or {"PodDisruptionBudget", "NetworkPolicy", "StatefulSet"} < kinds


def test_the_commands_that_are_told_exist(binary):
    texts = [file.read_text() for file in DEPLOY.rglob("*.yaml")] + [(ROOT / "Dockerfile").read_text()]
    told = {words for text in texts for words in re.findall(r"\bedge (run|check|reload|health|status|upgrade|key new)\b", text)}
    assert {"reload", "check", "key new"} <= told
    for words in told:
        run(binary, *words.split(), "--help")


def test_prometheus_rules(tmp_path):
    promtool = tool("promtool")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES)
    tests = yaml.safe_load((HERE / "rules-test.yaml").read_text())
    rules = yaml.safe_load(RULES.read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    gone_off = {case["alertname"] for test in tests["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert gone_off == alerts
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests | {"rule_files": [str(RULES)]}))
    run(promtool, "test", "rules", tmp_path / "tests.yaml")
    config = (DEPLOY / "compose/prometheus.yaml").read_text()
    staged = tmp_path / "prometheus.yaml"
    (tmp_path / "prometheus.key").write_text("key")
    staged.write_text(config.replace("/etc/prometheus/rules.yaml", str(RULES)).replace("/run/secrets", str(tmp_path)))
    assert str(RULES) in staged.read_text()
    run(promtool, "check", "config", staged)

    # the one for clusters finds the edges of the manifests by their labels and the port's name
    scrape = (DEPLOY / "prometheus/scrape-kubernetes.yaml").read_text()
    # Debian's Prometheus is built without Kubernetes' discovery; all but that line it can judge
    discovery = "kubernetes_sd_configs: [ { role: pod } ]"
    assert discovery in scrape
    staged = scrape.replace("/etc/prometheus/secrets/mcp-edge", str(tmp_path / "key")).replace(discovery, "static_configs: []")
    (tmp_path / "scrape.yaml").write_text(staged)
    (tmp_path / "key").write_text("key")
    run(promtool, "check", "config", tmp_path / "scrape.yaml")
    [job] = yaml.safe_load(scrape)["scrape_configs"]
    wanted = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    assert wanted == {"__meta_kubernetes_pod_container_name": "edge", "__meta_kubernetes_pod_container_port_name": "admin"}
    assert job["job_name"] == "mcp-edge"
