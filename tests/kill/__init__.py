"""`./dev kill`: kill -9 under load, judged from a ledger that the jobs write themselves."""
