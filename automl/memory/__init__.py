"""Peak GPU memory of a training step, predicted without a GPU.

`import automl.memory.estimate` imports no torch; neither does a prediction that is in the cache.
"""
