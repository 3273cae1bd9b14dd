"""asymmbook: what only the making of this book needs. It works in a checkout of the project; see `checkout`."""
