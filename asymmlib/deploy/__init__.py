"""A trained network outside this library: files for other runtimes, each run and compared, and how fast they answer."""
