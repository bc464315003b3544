"""Is the workspace's copy what the source says it is: read back, compared, recorded, and sent again where it lacks."""
