"""The embedded cloud: AWS's APIs on this machine's loopback, started and used by `dml ... --local` (operator time)."""
