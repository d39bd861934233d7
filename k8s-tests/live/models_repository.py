"""A repository of models, as somebody works on it, with a server in the cluster that the platform follows."""

from __future__ import annotations

from pathlib import Path

from namespace import Namespace
from release import Platform
from runs import port_forward
from stand_ins import stand_in

from app.testing.git import Repository


class ModelsRepository:
    """A repository with a README and a folder for models; each commit is pushed to git's own daemon.

    Args:
        folder: where it is on this machine.
        namespace: where the daemon runs.
    """

    def __init__(self, folder: Path, namespace: Namespace) -> None:
        self._daemon = Platform(namespace.name, namespace.api)
        self.url = f"git://{stand_in(namespace, 'git', 9418, {})}/models"
        self._repository = Repository(folder)
        self._repository.commit({"README.md": "Models\n", "models/.keep": ""})
        self.push()

    def push(self, **files: str | None) -> str:
        """Write these model files, or remove those that are None, commit and push; the commit."""
        commit = self._repository.commit({f"models/{name}.py": text for name, text in files.items()})
        with port_forward(self._daemon, "git", 9418, "git") as port:
            self._repository.git("push", "-q", f"git://127.0.0.1:{port}/models", "main")
        return commit
