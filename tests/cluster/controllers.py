"""What a cluster's controllers make of an object, at once: all is well with it."""

from __future__ import annotations

from tests.cluster.errors import Json


def settle(manifest: Json) -> Json:
    """Returns the object with the status that it has once all is done."""
    status = _STATUS.get(manifest["kind"])
    if status is None:
        return manifest
    return {**manifest, "status": status(manifest)}


def _pod(manifest: Json) -> Json:
    ends = manifest["spec"].get("restartPolicy") == "Never"
    return {"phase": "Succeeded"} if ends else {"phase": "Running"}


def _job(manifest: Json) -> Json:
    del manifest
    done = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    return {"succeeded": 1, "conditions": done}


def _deployment(manifest: Json) -> Json:
    replicas = manifest["spec"].get("replicas", 1)
    return {
        "observedGeneration": manifest["metadata"]["generation"],
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
        "conditions": [{"type": "Available", "status": "True"}],
    }


def _daemonset(manifest: Json) -> Json:
    return {
        "observedGeneration": manifest["metadata"]["generation"],
        "currentNumberScheduled": 2,
        "desiredNumberScheduled": 2,
        "updatedNumberScheduled": 2,
        "numberReady": 2,
        "numberAvailable": 2,
        "numberMisscheduled": 0,
    }


_STATUS = {"DaemonSet": _daemonset, "Deployment": _deployment, "Job": _job, "Pod": _pod}
