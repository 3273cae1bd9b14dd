"""Weights on disk: our own (`own`, `settings`), those that come with the book (`released`), and files of others.

The latter: `contents` reads any (`pth`, `pickles`, `tensors`, `gluon`), `find` finds the network in it by `names`,
`solve` its settings by shapes; `official` loads and writes the authors' names, `convert` does it all for the commands.
"""
