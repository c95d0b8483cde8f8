"""What `swathe train --check` tells of the data of a training."""
