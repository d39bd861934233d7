"""A runtime of MLServer that runs an ONNX model; the model's `uri` is its file."""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxModel(MLModel):
    """Takes one input of shape (n_rows, n_features), answers `label` and `probabilities` of each row."""

    async def load(self) -> bool:
        """Open the model, for the one core that there is."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = self.settings.parameters.uri if self.settings.parameters else ""
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input_names = [item.name for item in self.session.get_inputs()]
        self.output_names = [item.name for item in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model on the rows."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        answers = self.session.run(self.output_names, {self.input_names[0]: rows})
        outputs = [
            NumpyCodec.encode_output(name, answer) for name, answer in zip(self.output_names, answers, strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
