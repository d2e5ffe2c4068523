"""Writing a file that is proved before it has its name."""

import shutil
from pathlib import Path

from dora_diffusion.adapters import AdapterState
from dora_diffusion.errors import FormatError, MachineError
from dora_diffusion.formats.format import Base, Format, Precision
from dora_diffusion.formats.verify.against import verify_against
from dora_diffusion.formats.verify.compare import Verification
from dora_diffusion.formats.verify.promises import readers_of
from dora_diffusion.formats.verify.reading import read_adapter_file
from dora_diffusion.formats.verify.report import first_fault


def write_proved(
    form: Format, state: AdapterState, output: Path, base: Base, precision: Precision = "fp32"
) -> list[Verification]:
    """Write ``state`` beside ``output``, read it back as each reader does that the format is for, and then rename it.

    Returns:
        What each of those readers makes of the file; nothing for a format that is judged otherwise.

    Raises:
        FormatError: in one of its readers the file would give other weights; nothing is left, and an older file stays.
        AdapterError, ConfigError, ModelError, MachineError: as ``Format.write`` and ``verify_against`` say.
    """
    # Under its own name in a folder of its own: some headers repeat the name.
    folder = output.with_name(f".{output.name}.unproved")
    shutil.rmtree(folder, ignore_errors=True)
    fresh = folder / output.name
    try:
        form.write(state, fresh, base, precision)
        found = _prove(form, state, fresh, base)
        if output.is_dir():
            shutil.rmtree(output)
        fresh.replace(output)
    except OSError as error:
        raise MachineError(f"{output} cannot be written: {error.strerror or error}. Give another --output.") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _prove(form: Format, state: AdapterState, file: Path, base: Base) -> list[Verification]:
    names = readers_of(form.name)
    found = verify_against(read_adapter_file(file), state, base, names) if names else []
    for one in found:
        if not one.is_right:
            raise FormatError(
                f"The format {form.name!r} cannot carry this adapter to {one.reader}: {first_fault(one)}. Nothing was "
                "written; export another format."
            )
    return found
