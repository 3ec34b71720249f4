"""What a project says: mlship.yaml as frozen values, and how the layers of settings merge."""
