"""What every room stands on: files written whole, folders, what a result depends on, Paddle's start, processes."""
