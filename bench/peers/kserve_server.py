"""KServe's Python server with the scikit-learn model. Arguments: the model's file (joblib), and KServe's own.

KServe's image for scikit-learn is no package; its `predict` is these few calls.
"""

from __future__ import annotations

import argparse
from typing import Any

import joblib
import kserve
from kserve.utils.utils import get_predict_input, get_predict_response


class Iris(kserve.Model):
    """Takes and answers both of KServe's protocols."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.model = joblib.load(path)
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """The class of each row."""
        return get_predict_response(payload, self.model.predict(get_predict_input(payload)), self.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[kserve.model_server.parser])
    parser.add_argument("model")
    options, _ = parser.parse_known_args()
    kserve.ModelServer().start([Iris("iris", options.model)])
