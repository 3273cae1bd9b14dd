"""From an archive or a folder to checked, decoded pictures. Nothing in this room imports Paddle."""
