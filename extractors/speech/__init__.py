"""Speech: voice activity, transcription, diarization, utterances."""
