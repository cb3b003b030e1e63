"""Virtual machines of this host: their images, their QEMU, and guests that run for one job."""
