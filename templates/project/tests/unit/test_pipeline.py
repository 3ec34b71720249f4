"""Tests of the code. They need no trained model."""

import pipeline


def test_there_is_a_training_function():
    assert callable(pipeline.train)
