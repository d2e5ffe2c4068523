"""How well an adapter learned its subject, and at what cost to everything else."""

from dora_diffusion.evaluation.evaluate import evaluate
from dora_diffusion.evaluation.report import Evaluation

__all__ = ["Evaluation", "evaluate"]
