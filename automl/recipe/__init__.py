"""A recipe: every hyperparameter of one training run, resolved. It is what a trial trains and what is exported.

The nesting is the search space's: a branch of the space (`optimizer: {choice: {sgd: …}}`) becomes a mapping with
its `name` here (`optimizer: {name: sgd, …}`).
"""

from automl.recipe.recipe import Numerics as Numerics
from automl.recipe.recipe import Recipe as Recipe
