"""Bad inputs and the whole text each is answered with."""
