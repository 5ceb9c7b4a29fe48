"""What is asked of Linux: namespaces, processes, paths. Standard library only, so that `spawn` starts quickly."""
