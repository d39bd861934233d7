"""What tests put beside the platform in place of somebody's own: the images of stand-ins/, a Redis and an S3."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from release import run

from images import registry
from images.offline import content, tools

FOLDER = Path(__file__).parent / "stand-ins"


def image(name: str) -> str:
    """The image of stand-ins/<name>, which nodes can pull; built where the cluster's registry does not have it.

    A folder with a go.mod has its programs (`tool` there) built beside the Dockerfile first.
    """
    folder = FOLDER / name
    reference = f"stand-ins/{name}:{content.key(content.files(folder))}"
    if registry.manifest(reference) is None:
        with TemporaryDirectory() as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            if (folder / "go.mod").exists():
                flags = [*tools.FLAGS, "-ldflags=-s -w"]
                run([tools.go_command(), "build", "-C", copy, *flags, "-o", f"{copy}/", "tool"], 1200, tools.ENV)
            run(["docker", "buildx", "build", "--provenance=false", "--load", "-t", reference, copy], 600)
        registry.push(reference)
    return reference
