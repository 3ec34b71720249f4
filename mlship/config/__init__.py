"""mlship.yaml as frozen values, and the merge of the layers of settings."""
