"""The demo bundle from seeds: its build, its trunk's training, the anatomy the trunk learns."""
