"""Raw video in, emotion predictions per utterance out, on your own machine.

>>> import emopipe
>>> result = emopipe.run("interview.mp4")  # doctest: +SKIP
>>> result.to_pandas()[["text", "label"]]  # doctest: +SKIP

Nothing heavy is imported before it is used.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emopipe.api import (
        blur,
        correct,
        diff,
        evaluate,
        export,
        extract,
        load,
        methods,
        run,
        share,
        speakers,
        tables,
        train,
    )
    from emopipe.errors import EmopipeError
    from emopipe.results import Results

    __version__: str

__all__ = [
    "EmopipeError",
    "Results",
    "__version__",
    "blur",
    "correct",
    "diff",
    "evaluate",
    "export",
    "extract",
    "load",
    "methods",
    "run",
    "share",
    "speakers",
    "tables",
    "train",
]

#: Name -> module that defines it.
_LAZY = {
    **dict.fromkeys(
        (
            "blur",
            "correct",
            "diff",
            "evaluate",
            "export",
            "extract",
            "load",
            "methods",
            "run",
            "share",
            "speakers",
            "tables",
            "train",
        ),
        "emopipe.api",
    ),
    "EmopipeError": "emopipe.errors",
    "Results": "emopipe.results",
}

# In a checkout the folders pipeline/, extractors/ and models/ lie beside this one; an installation has them inside it.
_checkout = Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "pipeline").is_dir():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("emopipe")
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'emopipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
