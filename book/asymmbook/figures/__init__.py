"""How the book draws: one style, diagrams of the network, plots of data and results."""
