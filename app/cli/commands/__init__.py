"""The commands, one module each; each adds itself to the program when it is imported."""
