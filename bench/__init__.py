"""`make bench`: this project's training against the usual ways to grow one tree, on the same rows and machine."""
