"""What is recorded: the trial and the first comparison, measurements, their tables and what they say."""
