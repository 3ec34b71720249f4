"""The steps of the pipeline: one public function a module, named as its command.

A step knows ports, gates and values; it never knows a backend, a terminal or the environment.
"""
