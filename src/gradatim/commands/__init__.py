"""What the command line does: options made of dataclasses, and the longer commands, one file each."""
