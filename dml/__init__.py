"""What an operator runs: the `dml` command, over the AWS APIs (dml.local is the embedded cloud)."""
