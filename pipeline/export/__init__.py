"""Results of a run in the formats of other programs: tables, subtitles, annotations of ELAN and Praat."""
