"""The images of images.toml: base images from Debian packages, the others from Dockerfiles, keyed by their content."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from images.offline import content, host, tools
from images.offline.paths import BIN, OFFLINE, TEMPORARY
from images.offline.steps import Log

LABEL = "mlops.offline.key"
# Debian's name for the certificates this machine trusts, a company's own among them; pip and Python look there too.
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# As in the official slim images: no manuals, and what apt downloads is not kept.
SLIM = [
    *("path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*"),
    *("path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright"),
]
CLEAN = 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };'
KEEP_NO_ARCHIVES = f"""echo '{CLEAN}' > "$1/etc/apt/apt.conf.d/docker-clean\""""


@dataclass(frozen=True)
class Image:
    """One entry of images.toml, see the head of that file."""

    name: str
    folder: str = ""
    suite: str = ""
    tools: tuple[str, ...] = ()
    node: bool = False
    push: bool = False
    late: bool = False

    @property
    def source(self) -> Path:
        """The folder of its Dockerfile."""
        return OFFLINE / ("node" if self.folder == "node" else f"stand-ins/{self.folder}")

    @property
    def bases(self) -> list[str]:
        """The images of the list that this one is built upon."""
        if self.suite:
            return []
        named = re.findall(r"^FROM (\S+)|^COPY --from=(\S+)", (self.source / "Dockerfile").read_text(), re.MULTILINE)
        return [name for pair in named for name in pair if name in load()]

    @property
    def key(self) -> str:
        """The hash of all that it is built from."""
        return _key(self.name)

    @property
    def step(self) -> str:
        """What its build is called; images of one folder are built once."""
        return f"image {self.folder or self.name}"


@cache
def load() -> dict[str, Image]:
    """The list of images.toml, by name, in its order."""
    entries = tomllib.loads((OFFLINE / "images.toml").read_text())
    return {name: Image(name, **content.tuples(entry)) for name, entry in entries.items()}


@cache
def _key(name: str) -> str:
    image, programs = load()[name], tools.load()
    if image.suite:
        certificates = CERTIFICATES.read_text() if CERTIFICATES.exists() else ""
        return content.key(image.suite, host.mirror(), certificates)
    inside = [load()[other].key for other in inner_images(image)]
    return content.key(
        content.files(image.source),
        [load()[base].key for base in image.bases],
        [programs[tool].key for tool in image.tools],
        inside,
    )


def inner_images(image: Image) -> list[str]:
    """The images that a node brings with it; none for other images."""
    return [other.name for other in load().values() if other.node] if image.folder == "node" else []


def debian() -> Image:
    """What the platform's own images start from."""
    return next(image for image in load().values() if image.suite)


def node_image() -> Image:
    """The image of the kind nodes."""
    return next(image for image in load().values() if image.folder == "node")


def keys_present() -> dict[str, str]:
    """Image name -> content key, for the images of the list that the engine has."""
    result = subprocess.run(["docker", "image", "inspect", *load()], capture_output=True, text=True, check=False)
    keys: dict[str, str] = {}
    for entry in json.loads(result.stdout or "[]"):
        for tag in entry["RepoTags"]:
            keys[tag] = (entry["Config"].get("Labels") or {}).get(LABEL, "")
    return {name: keys[short(name)] for name in load() if short(name) in keys}


def short(name: str) -> str:
    """An image's name as the engine lists it: without docker.io/ and library/."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def build_base(image: Image, log: Log) -> None:
    """A Debian base image from the packages of the host's archive. mmdebstrap's half-made trees are never imported."""
    with tempfile.TemporaryDirectory(dir=TEMPORARY, prefix=f"{image.suite}-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        certificates = (
            [f"--customize-hook=copy-in {CERTIFICATES} {CERTIFICATES.parent}"] if CERTIFICATES.exists() else []
        )
        log.run(
            [
                *("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "--dpkgopt=force-unsafe-io"),
                *(f"--dpkgopt={option}" for option in SLIM),
                *('--aptopt=Acquire::Retries "3"', f"--customize-hook={KEEP_NO_ARCHIVES}"),
                *certificates,
                *(image.suite, folder / "root.tar", host.mirror()),
            ],
            env={"TMPDIR": name},
            retries=1,
        )
        settings = [f"ENV {name}={CERTIFICATES}" for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
        changes = ['CMD ["bash"]', *settings, f"LABEL {LABEL}={image.key}"]
        options = [word for change in changes for word in ("--change", change)]
        log.run(["docker", "import", *options, folder / "root.tar", image.name])


def build(images: list[Image], log: Log) -> None:
    """Build the Dockerfile that the images share, and give each its name."""
    first = images[0]
    with tempfile.TemporaryDirectory(dir=TEMPORARY) as extra:
        contexts = [f"--build-context=bin={BIN}"]
        inner = inner_images(first)
        if inner:
            # A node starts faster with one archive of its images than with many: they share layers.
            log.run(["docker", "save", "-o", Path(extra) / "node.tar", *inner])
            contexts.append(f"--build-context=images={extra}")
        tags = [word for image in images for word in ("-t", image.name)]
        label = f"{LABEL}={first.key}"
        # The default frontend is the engine's own; provenance would make an index of every image.
        command = ["docker", "buildx", "build", "--provenance=false", "--load", *contexts, "--label", label, *tags]
        log.run([*command, first.source], retries=1)
