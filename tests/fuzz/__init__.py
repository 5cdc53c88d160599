"""Random input from seeds, against a real Master: documents, frames of a worker's link, bytes."""
