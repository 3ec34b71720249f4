"""What `mlship init` writes into a repository: a project, and the workflows that ship it."""
