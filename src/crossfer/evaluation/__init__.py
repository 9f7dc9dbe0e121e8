"""From predictions to metrics, integrity and recommendations: pure functions."""
