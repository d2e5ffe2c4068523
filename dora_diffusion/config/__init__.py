"""The only source of settings: frozen models that flags, YAML, forms and docs are derived from. Never imports torch."""

from dora_diffusion.config.adapter import AdapterConfig
from dora_diffusion.config.data import DataConfig
from dora_diffusion.config.loss import LossConfig
from dora_diffusion.config.model import ModelConfig
from dora_diffusion.config.optim import OptimConfig
from dora_diffusion.config.prior import PriorConfig
from dora_diffusion.config.run import RunConfig
from dora_diffusion.config.tools import CombineConfig, ConvertConfig, ExtractConfig, ResizeConfig
from dora_diffusion.config.train import TrainConfig
from dora_diffusion.config.use import (
    AppConfig,
    DemoConfig,
    DoctorConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    InspectConfig,
    MergeConfig,
    VerifyConfig,
)

__all__ = [
    "AdapterConfig",
    "AppConfig",
    "CombineConfig",
    "ConvertConfig",
    "DataConfig",
    "DemoConfig",
    "DoctorConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExtractConfig",
    "GenerateConfig",
    "InspectConfig",
    "LossConfig",
    "MergeConfig",
    "ModelConfig",
    "OptimConfig",
    "PriorConfig",
    "ResizeConfig",
    "RunConfig",
    "TrainConfig",
    "VerifyConfig",
]
