"""Images as a run sees them: held in memory or streamed, from a data set's part or from Python."""
