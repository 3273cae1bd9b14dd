"""A trained network in use: answers for many pictures, files for other runtimes, each run and compared, and timing."""
