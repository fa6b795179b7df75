"""Virtual machines as droplets: what a container cannot show, because the kernel is not its own."""
