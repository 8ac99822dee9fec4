"""The parts of the image builder: see images/README.md."""
