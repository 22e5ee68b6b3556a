"""A model as MLflow keeps and serves it: our code, the model's files, a signature and an example, and no pickle."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow.pyfunc
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from training.model import RiskModel
from training.tracking.code_version import package_version

MODEL = "model"
PYFUNC = Path(__file__).parents[1] / "pyfunc.py"


def save_for_mlflow(model: RiskModel, folder: Path, described: Model | None = None) -> str:
    """Write a model as MLflow serves it.

    Returns
    -------
    the digest of the model's files
    """
    with TemporaryDirectory(prefix="weibing-") as scratch:
        files = Path(scratch, MODEL)
        model.save(files)
        mlflow.pyfunc.save_model(
            folder,
            python_model=PYFUNC,
            artifacts={MODEL: str(files)},
            mlflow_model=described,
            signature=signature_of(model),
            input_example=example_of(model),
            pip_requirements=[f"weibing=={package_version()}"],
        )
        return digest_of(files)


def signature_of(model: RiskModel) -> ModelSignature:
    """Return what MLflow checks at its door: the features by name, and whether reasons are asked for."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.double, name) for name in model.card.features]),
        outputs=Schema([ColSpec(DataType.double)]),
        params=ParamSchema([ParamSpec("explain", DataType.boolean, default=False)]),
    )


def example_of(model: RiskModel) -> pd.DataFrame:
    """Return rows that the model can score and that are nobody's: the deciles of each feature, and nothing known."""
    typical = {name: [*of.quantiles[1:-1], float("nan")] for name, of in model.background.items()}
    return pd.DataFrame({name: typical[name] for name in model.card.features})


def digest_of(folder: Path) -> str:
    """Return a fingerprint of a model's files by name and content."""
    return digest_of_files(folder, sorted((*folder.rglob("*.txt"), *folder.rglob("*.json"))))


def digest_of_files(folder: Path, paths: list[Path]) -> str:
    """Return a fingerprint of files by name within a folder and content; of one that is missing, by name alone."""
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()
