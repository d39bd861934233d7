"""Predictions as FastAPI and pydantic alone would serve them: one request at a time, read by the schema.

It is what the fast route is compared with: the same answers to every request, good or bad.
"""

from __future__ import annotations

import json

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from app.api.endpoint import no_answer
from app.api.errors import Refusal
from app.api.invocations import is_csv, rows_of_csv, rows_of_json
from app.api.open_inference import infer_refusal_body, label_datatype, read_request, requested_outputs
from app.api.row_decoder import Row
from app.api.served_model import NoPrediction, ServedModel
from app.api.served_models import ServedModels
from app.api.tensors import rows_of_tensors
from app.contract.open_inference import InferAnswer, OutputTensor
from app.contract.predictions import Prediction, Scores
from app.registry.predictor import Predictions


def plain_app(models: ServedModels, predicted: list[tuple[str, list[Row], Predictions]]) -> FastAPI:
    """An app that answers predictions of these models, with empty ids.

    Args:
        predicted: gets the model, rows and predictions of each request that is answered.
    """
    app = FastAPI()

    def predict(served: ServedModel, rows: list[Row]) -> Predictions:
        try:
            predictions = served.predict(rows)
        except NoPrediction as error:
            raise no_answer(error) from error
        predicted.append((served.name, rows, predictions))
        return predictions

    @app.exception_handler(Refusal)
    async def refuse(request: Request, error: Refusal) -> Response:
        body = infer_refusal_body(error) if request.url.path.startswith("/v2/") else error.body()
        return Response(body, error.status, error.headers, "application/json")

    @app.post("/models/{name}/predict")
    async def predict_rows(name: str, request: Request) -> Response:
        served, body = models.get(name), await request.body()
        many = body.lstrip()[:1] == b"["
        rows = served.schema.read_many(body) if many else [served.schema.read_one(body)]
        predictions = predict(served, rows)
        classes = [label if isinstance(label, str) else json.dumps(label) for label in served.bundle.classes]
        answers = []
        for i, label in enumerate(predictions.labels):
            answer = Prediction(
                prediction=label,
                model=name,
                version=served.version,
                run_id=served.run_id,
                prediction_id="",
                probabilities=None,
                feedback_token=None,
            )
            if predictions.probabilities:
                answer.probabilities = dict(zip(classes, predictions.probabilities[i], strict=True))
            answers.append(answer.model_dump(exclude_none=True))
        return JSONResponse(answers if many else answers[0])

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        served, body = models.get(), await request.body()
        csv = is_csv(request.headers.get("content-type", "").encode("latin-1"))
        rows = rows_of_csv(served, body) if csv else rows_of_json(served, body)
        scores = Scores(
            predictions=predict(served, rows).labels,
            model=served.name,
            version=served.version,
            run_id=served.run_id,
            prediction_ids=[""] * len(rows),
            feedback_tokens=None,
        )
        return JSONResponse(scores.model_dump(exclude_none=True))

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, request: Request) -> Response:
        served = models.get(name)
        asked = read_request(await request.body())
        rows = rows_of_tensors(served, asked)
        assert isinstance(rows, list)  # there are no tensors in binary
        labels, probabilities = predict(served, rows)
        n = len(rows)
        first = ("label", label_datatype(served)) if served.is_classifier else ("value", "FP64")
        outputs = [OutputTensor(name=first[0], datatype=first[1], shape=[n], data=labels)]
        if probabilities:
            flat = [value for row in probabilities for value in row]
            shape = [n, len(served.bundle.classes)]
            outputs.append(OutputTensor(name="probabilities", datatype="FP64", shape=shape, data=flat))
        outputs.append(OutputTensor(name="prediction_id", datatype="BYTES", shape=[n], data=[""] * n))
        answer = InferAnswer(
            model_name=name,
            model_version=served.version,
            id=asked.id or "",
            parameters={"run_id": served.run_id},
            outputs=outputs,
        ).model_dump()
        if asked.outputs:
            answer["outputs"] = requested_outputs(answer["outputs"], asked.outputs)
        return JSONResponse(answer)

    return app
