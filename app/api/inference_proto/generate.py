"""Writes the messages' Python from the .proto: `make proto`, after a change of it or of grpcio-tools."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
PROTO = "open_inference_grpc.proto"


def generated() -> dict[str, str]:
    """The files that should stand beside the .proto: their content by name.

    Raises:
        ValueError: the .proto cannot be read, or protoc writes something else than is expected here.
    """
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        if protoc.main(["protoc", f"-I{FOLDER}", f"--python_out={folder}", f"--pyi_out={folder}", PROTO]):
            raise ValueError(f"protoc cannot read {FOLDER / PROTO}: it says why above")
        files = {path.name: path.read_text() for path in Path(folder).iterdir()}
    module = f"{PROTO.removesuffix('.proto')}_pb2.py"
    # Into a pool of their own: other programs' messages in this process, such as Triton's, have the same names.
    shared, own = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"
    if files[module].count(shared) != 1:
        raise ValueError(f"protoc writes no {shared} into {module} any more: say here how the messages get their own")
    return files | {module: files[module].replace(shared, own)}


def main() -> int:
    """Write the files. Returns the exit code."""
    for name, content in generated().items():
        (FOLDER / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
