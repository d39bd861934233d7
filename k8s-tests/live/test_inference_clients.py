"""Clients of the Open Inference Protocol that nobody here wrote, on the cluster: Triton's, by gRPC."""

from __future__ import annotations

import sys

from release import ROOT, Platform, run
from runs import port_forward
from tritonclient.grpc import InferenceServerClient
from upgraded import Upgraded

from app.testing.docs import python_block


def served_by_grpc(platform: Platform, port: int) -> str:
    """The version that answers."""
    with InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_ready()
        return str(client.get_model_metadata("iris", as_json=True)["versions"][0])


def test_tritons_client_predicts_as_the_docs_say(upgraded: Upgraded) -> None:
    platform = upgraded.platform
    example = python_block(ROOT / "docs" / "operations.md")
    with port_forward(platform, "model-api", 8087) as port:
        version = served_by_grpc(platform, port)
        printed = run([sys.executable, "-c", example.replace("127.0.0.1:8087", f"127.0.0.1:{port}")])
    assert printed == "[b'setosa']\n"
    assert version == platform.client("api").get("/models/iris").json()["version"]
