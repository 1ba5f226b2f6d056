"""Make the sample clips and their timeline: `python samples/make_samples.py [FOLDER]`.

Needs `pip install 'emopipe[samples]'`. What the clips hold and where the parts come from: README.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from synthetic import Face, Line, Spoken, write_clip, write_silent_clip

INTERVIEW = [
    Line("Good morning. I work at the city library, and I live near the river.", "neutral", 1.4),
    Line("I am so happy today! My daughter just won her first swimming race!", "happiness", 1.6),
    Line("But last week our old dog died. I miss him so much, the house feels empty.", "sadness", 1.8),
    Line("And the landlord still has not fixed the heating! I am furious, this is not fair!", "anger", 1.5),
    Line("Oh wow, look outside! It is snowing in May! I never expected this!", "surprise", 1.6),
    Line("Anyway, thank you for listening. We can talk again on Monday.", "neutral", 1.2),
]
HAPPY = [Line("This is wonderful news, I am so glad that you came to see us!", "happiness", 0.8)]
SILENT = ["neutral", "surprise", "happiness"]


def write_timeline(path: Path, clips: Mapping[str, Sequence[Spoken]]) -> None:
    """One row per line heard or expression shown, times in seconds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["clip", "start", "end", "emotion", "text"])
        for clip, lines in clips.items():
            rows.writerows([clip, f"{s.start:.2f}", f"{s.end:.2f}", s.emotion, s.text] for s in lines)


def main(folder: Path) -> None:
    """Write interview.mp4, happy.mp4, silent.mp4 and timeline.csv into `folder`."""
    face = Face(640, 480, scale=2.2)
    clips = {
        "interview.mp4": write_clip(folder / "interview.mp4", face, INTERVIEW),
        "happy.mp4": write_clip(folder / "happy.mp4", face, HAPPY),
        "silent.mp4": write_silent_clip(folder / "silent.mp4", face, SILENT),
    }
    write_timeline(folder / "timeline.csv", clips)
    for name in clips:
        print(f"{name}: {(folder / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
