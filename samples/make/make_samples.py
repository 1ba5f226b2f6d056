"""Make the sample clips and their timeline: `python samples/make_samples.py [FOLDER]`.

Needs `pip install 'emopipe[samples]'`. What the clips hold and where the parts come from: README.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from conversation import INTERVIEWEE, INTERVIEWER, Said, spoken_parts, write_conversation
from puppet import Puppet
from skimage.data import astronaut
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
#: Who, what, seconds before it.
CONVERSATION = [
    (INTERVIEWER, "Welcome to the library. How long have you been working here?", 0.0),
    (INTERVIEWEE, "For eleven years now. I started in the reading room, and later they gave me the old maps.", 0.5),
    (INTERVIEWER, "What do you like about the maps?", 0.4),
    (INTERVIEWEE, "Every map is a letter from somebody who walked there. Some have coffee stains on the sea.", 0.6),
    (INTERVIEWEE, "I found a whole island that was only a stain!", 0.4),
    (INTERVIEWER, "And what happened last winter?", 0.5),
    (INTERVIEWEE, "A pipe broke above the shelves. We carried the boxes out all night, and we still lost some.", 0.5),
    (INTERVIEWER, "Did you think of giving up?", 0.4),
    (INTERVIEWEE, "Not for a moment. The children came to help, and now they know every street of the old town.", 0.4),
]
#: Factor on the voice's pitch of the interviewer and of the interviewee.
PITCHES = (0.82, 1.0)


def write_timeline(path: Path, clips: Mapping[str, Sequence[Spoken]]) -> None:
    """One row per line heard or expression shown, times in seconds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["clip", "start", "end", "emotion", "text"])
        for clip, lines in clips.items():
            rows.writerows([clip, f"{s.start:.2f}", f"{s.end:.2f}", s.emotion, s.text] for s in lines)


def portraits() -> list[Puppet]:
    """The interviewer and the interviewee."""
    folder = Path(__file__).parent
    hopper = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    assert hopper is not None
    pictures: list[Any] = [hopper[:, :, ::-1].copy(), astronaut()]  # type: ignore[no-untyped-call]
    meshes = [np.loadtxt(folder / f"{name}_mesh.csv", delimiter=",", skiprows=1) for name in ("hopper", "astronaut")]
    return [Puppet(picture, mesh, share=0.45) for picture, mesh in zip(pictures, meshes, strict=True)]


def write_turns(path: Path, said: Sequence[Said]) -> None:
    """One row per line of the conversation: who speaks from when to when, in seconds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["start", "end", "role", "text"])
        roles = {INTERVIEWER: "interviewer", INTERVIEWEE: "interviewee"}
        rows.writerows([f"{s.start:.2f}", f"{s.end:.2f}", roles[s.person], s.text] for s in said)


def main(folder: Path) -> None:
    """Write interview.mp4, happy.mp4, silent.mp4 with timeline.csv, and conversation.mp4 with turns.csv."""
    face = Face(640, 480, scale=2.2)
    clips = {
        "interview.mp4": write_clip(folder / "interview.mp4", face, INTERVIEW),
        "happy.mp4": write_clip(folder / "happy.mp4", face, HAPPY),
        "silent.mp4": write_silent_clip(folder / "silent.mp4", face, SILENT),
    }
    write_timeline(folder / "timeline.csv", clips)
    said, _ = write_conversation(folder / "conversation.mp4", portraits(), spoken_parts(CONVERSATION, PITCHES), "cuts")
    write_turns(folder / "turns.csv", said)
    for name in [*clips, "conversation.mp4"]:
        print(f"{name}: {(folder / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent)
