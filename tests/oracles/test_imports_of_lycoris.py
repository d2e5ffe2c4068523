"""Files that LyCORIS's own modules made are read as their maker applies them, norms along both axes.

Runs where ``DORA_ORACLE_LYCORIS`` names a checkout; ``tests/formats/test_imports.py`` has files written from its rules.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from asking import HERE, VARIABLES, read_answer, why_absent, worst
from exhibits import base_of

from dora_diffusion.errors import FormatError
from dora_diffusion.formats import load_adapter
from dora_diffusion.formats.base_weights import LoadedBase
from dora_diffusion.formats.verify import Merged

NORMS = ("", "rows", "columns")


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_merged_weights_are_the_makers(family: str, tmp_path: Path) -> None:
    if reason := why_absent("lycoris"):
        pytest.skip(reason)
    base = base_of(family, tmp_path)
    jobs = [
        {
            "base": str(base.folder),
            "norms": norms,
            "file": str(tmp_path / f"made-{norms}.safetensors"),
            "answer": str(tmp_path / f"answer-{norms}.safetensors"),
        }
        for norms in NORMS
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    command = [sys.executable, HERE / "lycoris_maker.py", os.environ[VARIABLES["lycoris"]], tmp_path / "jobs.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HERE)})
    assert done.returncode == 0, done.stderr[-3000:]
    weights = base.weights.weights
    for job in jobs:
        state = load_adapter(job["file"], LoadedBase(base.model))
        theirs = read_answer(Path(job["answer"])).weights
        assert state.layers.keys() == theirs.keys() and len(theirs) > 250
        of_weight, of_change = worst(dict(Merged(state, weights)), theirs, weights)
        assert of_weight <= 1e-6 and of_change <= 1e-4, f"{family}, {job['norms'] or 'LoRA'}: {of_weight} {of_change}"
    with pytest.raises(FormatError, match="input column"):
        load_adapter(jobs[2]["file"])
