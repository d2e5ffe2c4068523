"""The only source of settings: frozen models that flags, YAML files, forms and docs are all derived from. Never imports torch."""

from dora_diffusion.config.train import (
    AdapterConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    PriorConfig,
    RunConfig,
    TrainConfig,
)
from dora_diffusion.config.use import DemoConfig, DoctorConfig, ExportConfig, GenerateConfig, InspectConfig, MergeConfig

__all__ = [
    "AdapterConfig",
    "DataConfig",
    "DemoConfig",
    "DoctorConfig",
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
