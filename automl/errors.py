"""The exceptions a user can meet.

AutomlError
├── SpecError       a study spec, a flag, or a quantity that cannot be read
├── SpaceError      a search space with one or more mistakes, all of them listed
├── RecipeError     a recipe that does not fit its task
├── DataError       a data set that cannot be understood or used
├── WeightsError    pretrained weights out of reach, or a file that is not safe to load
├── PoolError       no backbone fits the budgets
├── StudyError      a study that cannot be created, continued, found, or go on
└── MemoryBudgetError  one training step needs more memory than the budget gives

Each message says the value, the limit and the fix, in one or a few plain lines. The command line prints it
and exits with code 2; only what is not an `AutomlError` shows a traceback.
"""


class AutomlError(Exception):
    """A mistake the user can mend; its message says how."""


class SpecError(AutomlError):
    """A study spec, a flag, or a quantity such as a size or a duration cannot be read."""


class SpaceError(AutomlError):
    """A search space has mistakes; the message lists all of them."""


class RecipeError(AutomlError):
    """A recipe does not fit the data or the task it is used for."""


class DataError(AutomlError):
    """A data set cannot be understood or cannot be used as it is."""


class WeightsError(AutomlError):
    """Pretrained weights are out of reach, or their file is not safe to load."""


class PoolError(AutomlError):
    """No backbone fits the budgets."""


class StudyError(AutomlError):
    """A study cannot be created, continued or found, or cannot go on."""


class MemoryBudgetError(AutomlError):
    """One training step needs more memory than the budget gives."""
