"""The demo bundle from seeds: build, the foundation of its trunk, the anatomy it learns from."""
