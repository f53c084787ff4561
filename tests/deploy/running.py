"""Runs the image as a node would: the manifest's container, under the OCI runtime runc."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.daemon.processes import PATIENCE_S, Child
from tests.daemon.servers import program
from tests.deploy.manifest import Json

POD_UID = "11111111-2222-3333-4444-555555555555"
_NO_EXEC = ["nosuid", "noexec", "nodev"]
_ALWAYS = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": _NO_EXEC},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_NO_EXEC, "ro"]},
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is put.

    Attributes:
        folder: For the bundle and the runtime's state; its own.
        root: Root file system of the image.
        network: Name of the network namespace.
        mounts: Path in the container -> file or folder of this machine.
    """

    folder: Path
    root: Path
    network: str
    mounts: dict[str, Path]


class Container:
    """One container, started by ``start`` and by what is executed in it."""

    def __init__(self, place: Place, image: Json, container: Json) -> None:
        """Writes the bundle.

        Args:
            place: Where it runs.
            image: Configuration of the image.
            container: Its part of the pod's specification.
        """
        self._folder = place.folder
        self._name = f"nodecache-{os.getpid()}-{place.folder.name}"
        self._environ = {"POD_UID": POD_UID, "KUBE_DNS_UPSTREAM_SERVICE_HOST": "10.96.0.20"}
        self._environ |= {
            item["name"]: item["value"] for item in container["env"] if "value" in item
        }
        self._config = _configuration(place, image, container, self._environ)
        command = container["command"] if "command" in container else image["Entrypoint"]
        self.arguments = [*command, *container["args"]]

    def start(self) -> Child:
        """Starts the daemon; ``exec`` works from now on."""
        self._write(self.arguments)
        return Child(self._command("run", self._name), self._folder / "log")

    def run(self, *words: str) -> str:
        """Runs one program in a container of the same kind; returns both of its outputs."""
        self._write(list(words))
        return self._output("run", f"{self._name}-once")[1]

    def exec(self, *words: str, environ: Sequence[str] = ()) -> tuple[int, str]:
        """Runs a program beside the daemon, as a probe does; returns exit code and output."""
        options = [word for item in environ for word in ("--env", item)]
        return self._output("exec", *options, self._name, *words)

    def _write(self, words: list[str]) -> None:
        self._config["process"]["args"] = words
        (self._folder / "config.json").write_text(json.dumps(self._config))

    def _command(self, action: str, *words: str) -> list[str]:
        options = ["--bundle", str(self._folder)] if action == "run" else []
        return [program("runc"), "--root", str(self._folder / "state"), action, *options, *words]

    def _output(self, action: str, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            self._command(action, *words),
            capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


def _configuration(
    place: Place, image: Json, container: Json, environ: dict[str, str]
) -> dict[str, Any]:
    """What a container runtime makes of image and specification (OCI runtime specification)."""
    rights = container["securityContext"]
    assert rights["capabilities"]["drop"] == ["ALL"]
    user = rights.get("runAsUser", 0)
    capabilities = [f"CAP_{name}" for name in rights["capabilities"].get("add", ())]
    kinds = ("bounding", "effective", "permitted")
    writable = {
        mount["mountPath"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]
    }
    mounts = [
        {
            "destination": inside,
            "type": "bind",
            "source": str(outside),
            "options": ["bind", "rw" if writable.get(inside, False) else "ro"],
        }
        for inside, outside in place.mounts.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(place.root), "readonly": rights["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": user, "gid": user},
            "cwd": "/",
            "env": [*image["Env"], *(f"{name}={value}" for name, value in environ.items())],
            "capabilities": dict.fromkeys(kinds, capabilities),
            "noNewPrivileges": not rights["allowPrivilegeEscalation"],
        },
        "mounts": [*_ALWAYS, *mounts],
        "linux": {
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": f"/run/netns/{place.network}"},
            ],
        },
    }
