"""Reviews: whether a guest was content, from the text."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from flows.model import Gate, Model

GOOD, BAD = ("clean", "friendly", "quiet", "lovely"), ("dirty", "rude", "loud", "awful")
OTHER = ("the", "room", "was", "staff", "we", "stayed", "breakfast", "a")


def load() -> pd.DataFrame:
    """Invented reviews of eight words, two of which tell."""
    random = np.random.default_rng(0)
    content = random.random(400) < 0.5
    texts = [" ".join(random.permutation([*random.choice(GOOD if good else BAD, 2), *random.choice(OTHER, 6)]))
             for good in content]  # fmt: skip
    return pd.DataFrame({"review": texts, "content": np.where(content, "yes", "no")})


def estimator(seed: int) -> object:
    """A logistic regression of the words' TF-IDF."""
    words = make_column_transformer((TfidfVectorizer(), "review"))
    return make_pipeline(words, LogisticRegression(random_state=seed))


model = Model("classification", "content", load, estimator, Gate("accuracy", 0.9, 0.05))
