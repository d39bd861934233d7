"""Finds model files and loads what they define."""

from __future__ import annotations

import os
import re
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from flows.model import Model, ModelFileError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
MODELS = Path(__file__).parent / "models"


def folders() -> list[Path]:
    """The folders that model files are looked for in: those of MLOPS_MODELS_PATH (like PATH), then flows/models.

    MLOPS_EXAMPLES=0 leaves flows/models out.
    """
    own = [Path(part) for part in os.environ.get("MLOPS_MODELS_PATH", "").split(os.pathsep) if part]
    return own if os.environ.get("MLOPS_EXAMPLES") == "0" else [*own, MODELS]


def model_names() -> list[str]:
    """The names of all model files, sorted."""
    return sorted({p.stem for folder in folders() for p in folder.glob("*.py") if not p.stem.startswith("_")})


def load_model(name: str) -> Model:
    """The model that the file `name`.py defines.

    Raises:
        ModelFileError: there is no such file, it cannot be imported, or it defines no `model`.
    """
    path = next((p for folder in folders() if (p := folder / f"{name}.py").is_file()), None)
    if path is None or not NAME.fullmatch(name):
        searched, known = ", ".join(map(str, folders())), ", ".join(model_names())
        raise ModelFileError(f"there is no model {name!r}; known are: {known} (looked in {searched})")
    module = _import(path)
    model = getattr(module, "model", None)
    if not isinstance(model, Model):
        raise ModelFileError(f"{path} defines no `model = Model(...)`")
    values = {**model.__dict__, "name": name, "description": (module.__doc__ or name).strip()}
    return Model(**values)


def load_models() -> tuple[list[Model], dict[str, str]]:
    """Every model whose file can be used; and of every other file its name, with what is wrong with it."""
    models, broken = [], {}
    for name in model_names():
        try:
            models.append(load_model(name))
        except ModelFileError as error:
            broken[name] = str(error)
    return models, broken


class _Loader(SourceFileLoader):
    """Reads the text each time: Python's cache takes a file of the same second and size for the one it had."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(path: Path) -> ModuleType:
    """Run the file anew, so that a changed one is seen; it may import files beside it, which begin with _."""
    name = f"flows.models.{path.stem}" if path.parent == MODELS else f"mlops_model_{path.stem}"
    spec = spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec
    assert spec.loader
    if path.parent != MODELS and str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ModelFileError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module
