"""FastAPI as its tutorial shows it: a model of a row, a dict as the answer. Argument: the port."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Row(BaseModel):
    """A flower, in centimetres."""

    sepal_length: float
    sepal_width: float
    petal_length: float
    petal_width: float


@app.post("/predict")
async def predict(row: Row) -> dict[str, str]:
    """The same answer for every row."""
    return {"prediction": "setosa"}


@app.post("/predict/rows")
async def predict_rows(rows: list[Row]) -> list[dict[str, str]]:
    """The same answer for each of the rows."""
    return [{"prediction": "setosa"} for _ in rows]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", ws="none", access_log=False)
