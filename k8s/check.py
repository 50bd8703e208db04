"""Holds rendered manifests against the mesh's own rules: what a schema cannot know. Called by validate.sh; says every fault, then exits 1."""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("gateway", "engine-worker", "services")
DURATION = re.compile(r"^(\d+)s$")

faults = []


def rule(holds, what):
    """Notes a rule that is broken."""
    if not holds:
        faults.append(what)


def settings():
    """The variables that the sources read, each with the source of the crate that reads it."""
    known = {}
    crates = {manifest.parent for folder in FOLDERS for manifest in (ROOT / folder).rglob("Cargo.toml")}
    for crate in sorted(crates):
        source = "".join(file.read_text() for file in sorted((crate / "src").rglob("*.rs")))
        for name in re.findall(r'env = "(UNBROKEN_[A-Z_]+)"', source):
            known[name] = known.get(name, "") + source
    return known


def labels(template):
    return template["metadata"]["labels"]


def selects(selector, pods):
    return [pod for pod in pods if selector.items() <= labels(pod).items()]


def check_pod(name, pod, known):
    """A workload's pod: restricted, probed, given time to stop, and set by variables that exist."""
    spec = pod["spec"]
    rule(spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{name}: not restricted")
    rule(spec.get("automountServiceAccountToken") is False, f"{name}: has a token for Kubernetes' API")
    rule(len(spec["containers"]) == 1, f"{name}: one process to a pod")
    container = spec["containers"][0]
    security = container["securityContext"]
    rule(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], f"{name}: may write or rise")
    rule(security["capabilities"] == {"drop": ["ALL"]}, f"{name}: has capabilities")
    rule({"livenessProbe", "readinessProbe"} <= container.keys(), f"{name}: is not probed")
    rule("memory" in container["resources"]["limits"] and container["resources"]["requests"].keys() >= {"cpu", "memory"}, f"{name}: no resources")
    rule(":" in container["image"] and not container["image"].endswith(":latest"), f"{name}: its image has no fixed tag")
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    rule(len(env) == len(container["env"]), f"{name}: a variable is set twice")
    for variable in env:
        rule(variable in known, f"{name}: {variable} is no setting of any process")
        by_name = (env[variable] or "").startswith("dns:///")
        rule(not by_name or "dns:///" in known.get(variable, ""), f"{name}: who reads {variable} knows no dns:///")
    grace = int(DURATION.match(env["UNBROKEN_GRACE"]).group(1))
    settle = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    rule(spec["terminationGracePeriodSeconds"] > grace + settle, f"{name}: is killed before its grace time is over")
    rule(spec["topologySpreadConstraints"], f"{name}: its pods may all be on one node")
    port = container["ports"][0]["containerPort"]
    rule(any(value == f"0.0.0.0:{port}" for value in env.values()), f"{name}: does not listen on the port that it names")
    return env


def check_redis(kinds):
    """The one workload that is not ours, where it is there: as restricted as the others, and called by gateways alone."""
    redis = kinds.get("StatefulSet", {}).get("unbroken-redis")
    if redis is None:
        return
    pod = redis["spec"]["template"]
    container = pod["spec"]["containers"][0]
    security = container["securityContext"]
    rule(pod["spec"]["securityContext"]["runAsNonRoot"] and security["readOnlyRootFilesystem"], "redis: not restricted")
    rule(not security["allowPrivilegeEscalation"] and security["capabilities"] == {"drop": ["ALL"]}, "redis: may rise")
    rule(selects(redis["spec"]["selector"]["matchLabels"], [pod]), "redis: its selector is not its own")
    rule(selects(kinds["Service"]["unbroken-redis"]["spec"]["selector"], [pod]), "redis: its service selects others")
    (ingress,) = kinds["NetworkPolicy"]["unbroken-redis"]["spec"]["ingress"]
    (caller,) = ingress["from"]
    gateway = kinds["Deployment"]["unbroken-gateway"]["spec"]
    rule(selects(caller["podSelector"]["matchLabels"], [gateway["template"]]), "redis: others than gateways may call it")
    rule([port["port"] for port in ingress["ports"]] == [container["ports"][0]["containerPort"]], "redis: the network lets in elsewhere")
    env = {variable["name"]: variable.get("value") for variable in gateway["template"]["spec"]["containers"][0]["env"]}
    rule("UNBROKEN_REDIS" in env, "redis: no gateway uses it")
    rule(env.get("UNBROKEN_GATEWAYS") == str(gateway["replicas"]), "redis: UNBROKEN_GATEWAYS is not how many gateways there are")


def check_addresses(name, env, services):
    """What a workload calls is a service of the mesh, at its port; many pods are seen one by one only behind a headless one."""
    for variable, value in env.items():
        match = re.match(r"^(dns:///)?(unbroken-[a-z]+):(\d+)$", value or "")
        if not match:
            continue
        service = services.get(match.group(2))
        rule(service is not None, f"{name}: {variable} names no service")
        if service:
            rule(int(match.group(3)) in [port["port"] for port in service["spec"]["ports"]], f"{name}: {variable} names no port of it")
            rule(bool(match.group(1)) == (service["spec"].get("clusterIP") == "None"), f"{name}: dns:/// and headless go together")


def main():
    documents = [document for document in yaml.safe_load_all(open(sys.argv[1])) if document]
    kinds = {}
    for document in documents:
        kinds.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
    pods = {name: one["spec"]["template"] for name, one in kinds["Deployment"].items()}
    rule(pods.keys() == {f"unbroken-{name}" for name in ("gateway", "router", "worker", "store")}, "there are four workloads")
    known, policies = settings(), kinds["NetworkPolicy"]
    for name, pod in pods.items():
        check_addresses(name, check_pod(name, pod, known), kinds["Service"])
        own = lambda selector: len(selects(selector, pods.values())) == 1 and selects(selector, [pod])
        rule(own(kinds["Deployment"][name]["spec"]["selector"]["matchLabels"]), f"{name}: its selector is not its own")
        rule(own(kinds["Service"][name]["spec"]["selector"]), f"{name}: its service selects others")
        rule(own(kinds["PodDisruptionBudget"][name]["spec"]["selector"]["matchLabels"]), f"{name}: has no budget of its own")
        port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
        opened = [p["port"] for ingress in policies[name]["spec"]["ingress"] for p in ingress["ports"]]
        rule(opened == [port], f"{name}: the network does not let in to its port alone")
    check_redis(kinds)
    deny = policies["unbroken-deny"]["spec"]
    rule(deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "the network is not closed by default")
    for fault in faults:
        print(f"{sys.argv[1]}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


main()
