"""What a model takes and answers by the Open Inference Protocol; `app.api.open_inference_info` and gRPC tell it."""

from __future__ import annotations

from app.api.open_inference import label_datatype
from app.api.served_model import ServedModel
from app.api.tensors import DATATYPES, MATRIX, NUMBERS
from app.contract.open_inference_metadata import ModelMetadata, TensorMetadata
from app.vocabulary import INTEGER


def model_metadata(served: ServedModel) -> ModelMetadata:
    """Inputs and outputs of a version."""
    canary = served.canary.answering if served.canary else None
    return ModelMetadata(
        name=served.name,
        versions=[served.version, *([canary.version] if canary else [])],
        platform="onnx_onnxv1" if served.bundle.serving == "onnx" else "sklearn_skops",
        inputs=_input_metadata(served),
        outputs=_output_metadata(served),
        parameters={"features": [f.name for f in served.bundle.features], "run_id": served.run_id},
    )


def _input_metadata(served: ServedModel) -> list[TensorMetadata]:
    features = served.bundle.features
    if all(feature.dtype in NUMBERS for feature in features):
        datatype = "INT64" if all(feature.dtype in INTEGER for feature in features) else "FP64"
        return [TensorMetadata(name=MATRIX, datatype=datatype, shape=[-1, len(features)])]
    return [TensorMetadata(name=f.name, datatype=DATATYPES[f.dtype], shape=[-1]) for f in features]


def _output_metadata(served: ServedModel) -> list[TensorMetadata]:
    outputs = [TensorMetadata(name="value", datatype="FP64", shape=[-1])]
    if served.is_classifier:
        outputs = [
            TensorMetadata(name="label", datatype=label_datatype(served), shape=[-1]),
            TensorMetadata(name="probabilities", datatype="FP64", shape=[-1, len(served.bundle.classes)]),
        ]
    return [*outputs, TensorMetadata(name="prediction_id", datatype="BYTES", shape=[-1])]
