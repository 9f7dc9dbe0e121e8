"""What the light install leaves out, and which extra brings it."""

from __future__ import annotations

from collections.abc import Collection

LEFT_OUT = {
    **dict.fromkeys(("starlette", "uvicorn"), "app"),
    **dict.fromkeys(("onnx",), "deploy"),
    **dict.fromkeys(("jinja2", "matplotlib", "numba", "pyarrow", "pydantic"), "train"),
    **dict.fromkeys(("safetensors", "torch", "yaml"), "train"),
}
"""The extra of each package."""


def needed(error: ModuleNotFoundError, also: Collection[str] = ()) -> str | None:
    """Say which extras to install for a package that is not there, and `also`; None if none brings it."""
    missing = (error.name or "").partition(".")[0]
    if missing not in LEFT_OUT:
        return None
    extras = ",".join(sorted({LEFT_OUT[missing], *also}))
    return f"this needs {missing}: pip install 'crossfer[{extras}]'"
