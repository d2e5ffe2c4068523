"""Adapter files made from adapter files, or from whole models."""

from dora_diffusion.formats.tools.combine import combine_files
from dora_diffusion.formats.tools.convert import convert_file
from dora_diffusion.formats.tools.extract import extract_models
from dora_diffusion.formats.tools.made import Made
from dora_diffusion.formats.tools.resize import resize_file

__all__ = ["Made", "combine_files", "convert_file", "extract_models", "resize_file"]
