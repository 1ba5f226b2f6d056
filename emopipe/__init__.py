"""Raw video in, emotion predictions per utterance out, on your own machine."""

from pathlib import Path

# In a checkout the folders pipeline/, extractors/ and models/ lie beside this one; an installation has them inside it.
_checkout = Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file() and (_checkout / "pipeline").is_dir():
    __path__.append(str(_checkout))
