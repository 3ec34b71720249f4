"""Models of CatBoost, PyTorch, Keras, Hugging Face and MLflow, made into what is served."""
