"""The steps of the pipeline: one public function in each module, named like its command.

A step uses ports, gates and values, never a backend, a terminal or the environment.
"""
