"""What pages and notebooks need beside their text: the first cell, the explorer, the live page, results."""
