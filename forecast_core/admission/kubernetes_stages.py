"""The admission policy as Kubernetes sees it: for each stage a namespace, a quota, a Ray cluster.

Belongs here: manifests as plain mappings, every number from the policy. Does not: Dagster's own
chart (`deploy/kubernetes/values.yaml`), writing files, talking to Kubernetes.

A stage is the policy's group of pipelines that share a room; its namespace gives that room a wall
which nobody can pass by mistake. Workers are as many as steps of full size fit the stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from forecast_core.admission.policy import Policy, Stage
from forecast_core.admission.step_room import Room

HEAD = Room(1, 2)  # schedules, and runs no step
RAYLET_GIB = 1.0  # what Ray itself takes beside a step
SETTINGS, SECRETS = "forecast-settings", "forecast-secrets"
Manifest = dict[str, Any]


def manifests(policy: Policy, image: str) -> Iterator[Manifest]:
    """Namespace, ResourceQuota and RayCluster of each stage; `image` holds the project and Ray."""
    for name, stage in policy.stages.items():
        namespace = f"forecast-{name}"
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        yield _quota(namespace, stage)
        yield _ray_cluster(namespace, stage, image)


def workers(stage: Stage) -> int:
    """Steps of full size that fit the stage at once, at least one."""
    step = stage.of_a_step
    fit = min(
        stage.cpu / step.cpu if step.cpu else 1.0,
        stage.memory_gib / step.memory_gib if step.memory_gib else 1.0,
        stage.runs,
    )
    return max(1, math.floor(fit + 1e-9))


def _quota(namespace: str, stage: Stage) -> Manifest:
    count = workers(stage)
    cpu = _cores(stage.of_a_step.cpu * count + HEAD.cpu)
    memory = _memory((stage.of_a_step.memory_gib + RAYLET_GIB) * count + HEAD.memory_gib)
    hard = {
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "requests.memory": memory,
        "limits.memory": memory,
        "pods": str(count + 1),
        "requests.nvidia.com/gpu": str(stage.gpu),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "room", "namespace": namespace},
        "spec": {"hard": hard},
    }


def _ray_cluster(namespace: str, stage: Stage, image: str) -> Manifest:
    count = workers(stage)
    with_gpu = min(stage.gpu, count)
    groups = [("gpu", with_gpu, 1), ("plain", count - with_gpu, 0)]
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": "forecast", "namespace": namespace},
        "spec": {
            "headGroupSpec": {"rayStartParams": head, "template": _pod("ray-head", image, HEAD)},
            "workerGroupSpecs": [
                _workers(name, replicas, gpu, stage, image)
                for name, replicas, gpu in groups
                if replicas
            ],
        },
    }


def _workers(name: str, replicas: int, gpu: int, stage: Stage, image: str) -> Manifest:
    step = stage.of_a_step
    room = Room(step.cpu, step.memory_gib, gpu)
    around = Room(step.cpu, step.memory_gib + RAYLET_GIB, gpu)
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": replicas,
        "maxReplicas": replicas,
        "rayStartParams": {
            "num-cpus": str(math.ceil(room.cpu)),
            "num-gpus": str(gpu),
            "memory": str(room.memory_bytes),
        },
        "template": _pod("ray-worker", image, around),
    }


def _pod(name: str, image: str, room: Room) -> Manifest:
    given = {"cpu": _cores(room.cpu), "memory": _memory(room.memory_gib)}
    if room.gpu:
        given["nvidia.com/gpu"] = str(room.gpu)
    container = {
        "name": name,
        "image": image,
        "resources": {"requests": dict(given), "limits": dict(given)},
        "envFrom": [{"configMapRef": {"name": SETTINGS}}, {"secretRef": {"name": SECRETS}}],
    }
    return {"spec": {"containers": [container]}}


def _cores(cpu: float) -> str:
    return f"{math.ceil(cpu * 1000 - 1e-6)}m"


def _memory(gib: float) -> str:
    return f"{math.ceil(gib * 1024 - 1e-6)}Mi"
