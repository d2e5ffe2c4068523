"""The only source of settings: frozen models that flags, YAML, forms and docs are derived from. Never imports torch."""

from dora_diffusion.config.train import (
    AdapterConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    PriorConfig,
    RunConfig,
    TrainConfig,
)
from dora_diffusion.config.use import (
    AppConfig,
    DemoConfig,
    DoctorConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    InspectConfig,
    MergeConfig,
)

__all__ = [
    "AdapterConfig",
    "AppConfig",
    "DataConfig",
    "DemoConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "InspectConfig",
    "MergeConfig",
    "ModelConfig",
    "OptimConfig",
    "PriorConfig",
    "RunConfig",
    "TrainConfig",
]
