"""What is stored of training: opening a run's folder so that nothing of anybody is lost; any weights by one name."""
