"""The families of trained reward models, one file each."""
