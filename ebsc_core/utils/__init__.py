"""What knows nothing of clustering: errors, files, devices, processes that train as one."""
