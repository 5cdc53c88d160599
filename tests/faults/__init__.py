"""What happens to a cluster when the network, a disk or a machine misbehaves."""
