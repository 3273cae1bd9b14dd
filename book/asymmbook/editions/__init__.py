"""What notebooks and pages put out, in the other languages of the book: words, tables, drawings."""
