"""What outlives the process: the only place with SQL. Blocking; whoever calls from a loop brings a thread."""
