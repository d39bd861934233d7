"""What the models of tests must be and reach, as model files say it of others."""

from app.vocabulary import Definition, Gate


def iris(threshold: float = 0.85, max_regression: float = 0.02, metric: str = "accuracy") -> Definition:
    """The definition of models that are trained on Iris, with this gate."""
    return Definition("classification", "species", Gate(metric, threshold, max_regression))


IRIS = iris()
LENIENT = iris(threshold=0.1)
