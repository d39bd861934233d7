"""LitServe with the scikit-learn model. Arguments: the model's file (joblib), the port."""

import sys

import joblib
import litserve
import numpy as np


class Iris(litserve.LitAPI):
    """Takes {"input": rows}, answers {"output": classes}."""

    def setup(self, device):
        """Load the model, once in the worker."""
        self.model = joblib.load(sys.argv[1])

    # without types, or LitServe takes them for those of the request
    def decode_request(self, request):
        """Rows as an array, shape (n_rows, n_features)."""
        return np.asarray(request["input"])

    def predict(self, x):
        """The class of each row, shape (n_rows,)."""
        return self.model.predict(x)

    def encode_response(self, output):
        """The classes as JSON."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Iris(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
