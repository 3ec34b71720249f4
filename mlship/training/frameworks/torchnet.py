"""PyTorch's modules, TorchScript and exported programs, which are served as ONNX.

Every file of PyTorch's that holds a whole model is code: `.pt` and `.pth` are pickles or
TorchScript, `.pt2` has pickled parts. They are loaded only where pickles are allowed, by digest.
"""

import io
import zipfile
from typing import Any

from mlship.errors import ProjectError
from mlship.training.frameworks.exports import Network, NotExportedError, exporting


def of(returned: object) -> Network | None:
    """Return a module or an exported program as a network; `None` for anything else."""
    kinds = [(kind.__module__, kind.__name__) for kind in type(returned).__mro__]
    model: Any = returned
    if ("torch.export.exported_program", "ExportedProgram") in kinds:
        return _network(model.module(), "the exported program")
    if ("torch.nn.modules.module", "Module") not in kinds:
        return None
    if ("torch.jit._script", "ScriptModule") in kinds:
        return _network(model, f"the TorchScript module {model.original_name}")
    return _network(model, f"the PyTorch module {type(model).__name__}")


def from_file(data: bytes, name: str) -> Any:
    """Return the module in a file, whose digest was checked: loading it runs its code.

    Raises:
        ProjectError: it holds weights only.
    """
    import torch

    file = io.BytesIO(data)
    if name.endswith(".pt2"):
        return torch.export.load(file)
    if _is_script(data):
        return torch.jit.load(file, map_location="cpu")
    loaded = torch.load(file, map_location="cpu", weights_only=False)
    if of(loaded) is None:
        message = f"{name} holds {type(loaded).__name__}, not a module: weights say nothing of how "
        message += "they are used"
        raise ProjectError(message, hint="return the module itself from the training function")
    return loaded


def _is_script(data: bytes) -> bool:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return any("/code/" in member for member in archive.namelist())


def _network(module: Any, name: str) -> Network:
    import torch

    if not name.endswith("program"):
        module = module.cpu().eval()
    parameter = next(iter(module.parameters()), None)
    dtype = torch.float32 if parameter is None else parameter.dtype

    def compute(matrix: Any) -> Any:
        with torch.no_grad():
            outputs = module(torch.from_numpy(matrix).to(dtype))
        if not isinstance(outputs, torch.Tensor):
            message = f"it returns {type(outputs).__name__}, not one tensor"
            raise TypeError(message)
        return outputs.detach().double().numpy()

    return Network(
        name=name,
        compute=compute,
        export=lambda columns: _graph(module, columns, dtype),
        dtype="float64" if dtype == torch.float64 else "float32",
    )


def _graph(module: Any, columns: int, dtype: Any) -> Any:
    """Return the ONNX graph of a module, by the exporter that manages it.

    Raises:
        NotExportedError: neither does.
    """
    import torch

    sample = torch.zeros(3, columns, dtype=dtype)
    try:
        with exporting("PyTorch"):
            return _exported(module, sample)
    except NotExportedError as error:
        try:
            with exporting("PyTorch"):
                return _traced(module, sample)
        except NotExportedError as other:
            raise NotExportedError(f"{error}; {other}") from other


def _exported(module: Any, sample: Any) -> Any:
    import torch

    program = torch.onnx.export(
        module,
        (sample,),
        dynamo=True,
        input_names=["features"],
        output_names=["outputs"],
        dynamic_shapes=({0: torch.export.Dim("rows")},),
        external_data=False,
        verbose=False,
    )
    return program.model_proto


def _traced(module: Any, sample: Any) -> Any:
    import onnx
    import torch

    file = io.BytesIO()
    torch.onnx.export(
        module,
        (sample,),
        file,
        dynamo=False,
        input_names=["features"],
        output_names=["outputs"],
        dynamic_axes={"features": {0: "rows"}, "outputs": {0: "rows"}},
    )
    return onnx.load_from_string(file.getvalue())
